"""Which update panels a log gives."""

from __future__ import annotations

import json
import re

import pytest

from diffalign.report.metrics_log import Metrics
from diffalign.report.update_panels import health_panels, step_index_panels


def titles(panels: list[str]) -> list[str]:
    return [re.search("<b>(.*?)</b>", panel).group(1) for panel in panels]


def rows(**values):
    return Metrics(steps=[{"event": "step", "step": i, **values} for i in (1, 2)])


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("group/zero_std", "Groups without spread"),
        ("kl", "KL to the reference"),
        ("grad_norm", "Gradient norm"),
        ("advantage/abs_mean", "Advantage size"),
        ("loss", "Loss"),
        ("lr", "Learning rate"),
    ],
)
def test_a_metric_has_its_panel_and_null_has_none(key, title):
    assert titles(health_panels(rows(**{key: 0.5}))) == [title]
    assert health_panels(rows(**{key: None})) == []


def test_a_kl_that_was_not_computed_is_not_drawn():
    assert health_panels(rows(kl=0.0)) == []
    assert titles(health_panels(rows(kl=1e-9, grad_norm=0.0))) == ["KL to the reference", "Gradient norm"]


def test_failed_scores_show_only_when_there_are_some():
    base = {"reward/a/mean": 1.0, "reward/a/std": 0.1}
    assert titles(health_panels(rows(**base, **{"reward/a/nan": 0}))) == ["Reward spread"]
    assert titles(health_panels(rows(**base, **{"reward/a/nan": 3}))) == ["Reward spread", "Failed scores"]


def test_ratio_is_drawn_as_distance_from_one_and_spread_as_it_is():
    values = {f"{key}/{i}": 1.0 + 0.25 * i for key in ("ratio/mean", "ratio/std") for i in (0, 1)}
    panels = step_index_panels(rows(**values))
    assert titles(panels) == ["Ratio − 1", "Ratio spread"]
    lines = [
        dict(json.loads(re.search(r'data-lines="(.*?)"', panel).group(1).replace("&quot;", '"'))) for panel in panels
    ]
    assert lines[0] == {"step index 0": [[1, 0.0], [2, 0.0]], "step index 1": [[1, 0.25], [2, 0.25]]}
    assert lines[1]["step index 1"] == [[1, 1.25], [2, 1.25]]


@pytest.mark.parametrize("key", ["clip/high", "clip/low", "dlogp"])
def test_other_metrics_by_step_index_have_a_panel(key):
    assert len(step_index_panels(rows(**{f"{key}/0": 0.1, f"{key}/7": 0.2}))) == 1


def test_the_last_update_of_a_rollout_is_drawn():
    steps = [{"event": "step", "step": i, "rollout": i // 2, "ratio/std/0": 0.1 * (i % 2)} for i in range(6)]
    (panel,) = step_index_panels(Metrics(steps=steps))
    assert "[[1, 0.1], [3, 0.1], [5, 0.1]]" in panel


def test_totals_alone_give_no_panel_by_step_index():
    assert step_index_panels(rows(**{"ratio/mean": 1.0})) == []
