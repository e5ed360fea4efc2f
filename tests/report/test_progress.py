"""Which progress panels a log gives."""

from __future__ import annotations

import json
import re

from diffalign.report.metrics_log import Metrics
from diffalign.report.progress import held_out_panel, reward_panels, task_panel, watch_panels


def drawn(panel: str) -> dict[str, list]:
    """Line name -> points, from the read-out data of a panel."""
    data = re.search(r'data-lines="(.*?)"', panel).group(1).replace("&quot;", '"')
    return dict(json.loads(data))


def steps(count, **values):
    return [{"event": "step", "step": i, **{k: v * i for k, v in values.items()}} for i in range(1, count + 1)]


def evaluation(step, guidance=2.0, **values):
    return {"event": "evaluation", "step": step, "guidance": guidance, **values}


def test_held_out_score_has_one_line_per_guidance_scale():
    rows = [evaluation(s, g, overall=0.1 * s + g / 100) for s in (0, 5) for g in (1.0, 3.0)]
    lines = drawn(held_out_panel(Metrics(evaluations=rows)))
    assert lines == {"guidance 1": [[0, 0.01], [5, 0.51]], "guidance 3": [[0, 0.03], [5, 0.53]]}


def test_before_and_after_are_a_line_of_their_own_and_no_part_of_a_curve():
    """They come from more images and other noise."""
    curve = [evaluation(s, overall=0.1 * s, **{"task/colors": 0.1 * s}) for s in (0, 5)]
    ends = [
        evaluation(s, guidance, overall=score, protocol=name, **{"task/colors": score})
        for name, s, guidance, score in (("before", 0, 3.0, 0.7), ("after", 5, 2.0, 0.9))
    ]
    metrics = Metrics(evaluations=[ends[0], *curve, ends[1]])
    assert drawn(held_out_panel(metrics)) == {
        "guidance 2": [[0, 0.0], [5, 0.5]],
        "before and after, guidance 3 and 2": [[0, 0.7], [5, 0.9]],
    }
    assert drawn(task_panel(metrics)) == {"colors": [[0, 0.0], [5, 0.5]]}
    assert list(drawn(held_out_panel(Metrics(evaluations=ends)))) == ["before and after, guidance 3 and 2"]
    assert drawn(task_panel(Metrics(evaluations=ends[1:]))) == {"colors": [[5, 0.9]]}


def test_no_evaluations_no_panels():
    metrics = Metrics(steps=steps(3, loss=1.0))
    assert held_out_panel(metrics) is None and task_panel(metrics) is None and reward_panels(metrics, []) == []
    assert watch_panels(metrics) == []


def test_tasks_are_drawn_at_one_guidance_scale():
    """The scale of most measurements: a last one at another scale is no part of the curve."""
    rows = [evaluation(s, g, **{"task/color_attr": 0.1 * g}) for s, g in ((0, 2.0), (5, 2.0), (5, 1.0))]
    assert drawn(task_panel(Metrics(evaluations=rows))) == {"color attr": [[0, 0.2], [5, 0.2]]}


def test_trained_reward_comes_first_and_held_out_ones_say_so():
    rows = [evaluation(s, **{"reward/a/mean": 1.0, "reward/b/mean": 2.0}) for s in (0, 5)]
    metrics = Metrics(steps=steps(5, **{"reward/b/mean": 0.5}), evaluations=rows)
    first, second = reward_panels(metrics, ["b"], 1.0)
    assert "Reward: b" in first and "trained on" in first and "never" not in first
    assert "Reward: a" in second and "never trained on" in second
    assert drawn(first) == {
        "rollouts, guidance 1": [[i, 0.5 * i] for i in range(1, 6)],
        "held-out, guidance 2": [[0, 2.0], [5, 2.0]],
    }
    assert drawn(second) == {"held-out, guidance 2": [[0, 1.0], [5, 1.0]]}
    assert "held-out, guidance 2</span>" in second, "a single line has no legend: the hint names it"


def test_held_out_rewards_at_two_scales_are_two_labelled_lines():
    rows = [evaluation(s, g, **{"reward/b/mean": g + s}) for s in (0, 5) for g in (1.0, 5.0)]
    (panel,) = reward_panels(Metrics(steps=steps(5, **{"reward/b/mean": 0.5}), evaluations=rows), ["b"], 1.0)
    lines = drawn(panel)
    assert list(lines) == ["rollouts, guidance 1", "held-out, guidance 1", "held-out, guidance 5"]
    assert lines["held-out, guidance 5"] == [[0, 5.0], [5, 10.0]]
    legend = re.search('class="legend">(.*)</span></figcaption>', panel).group(1)
    assert all(name in legend for name in lines)


def test_the_measures_of_the_watchdog_have_panels_and_without_it_there_are_none():
    rows = [evaluation(s, **{"watch/diversity": 0.2 - 0.01 * s, "watch/alarms": 0}) for s in (0, 5)]
    (panel,) = watch_panels(Metrics(evaluations=rows))
    assert "Pictures: diversity" in panel and drawn(panel) == {"held-out, guidance 2": [[0, 0.2], [5, 0.15]]}
    assert watch_panels(Metrics(evaluations=[evaluation(0, overall=0.5)])) == []


def test_a_long_run_gets_its_running_mean():
    lines = drawn(reward_panels(Metrics(steps=steps(48, **{"reward/b/mean": 0.5})), ["b"])[0])
    assert list(lines) == ["rollouts", "mean of 5 steps"]
    assert lines["mean of 5 steps"][10] == lines["rollouts"][10]
