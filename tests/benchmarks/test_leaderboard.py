"""The leaderboard: budgets, what is run again and what is not, the table and its reading."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import yaml

from diffalign.config import RunConfig
from diffalign.report import compare

HERE = Path(__file__).resolve().parents[2] / "benchmarks" / "alignment"


def load(name: str) -> ModuleType:
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


board, leaderboard = load("board"), load("leaderboard")


def evaluation(scores, soft, guidance):
    prompts = [
        {"prompt": f"p{i}", "task": f"t{i % 2}", "score": value, "rewards": {"shapes_strict": value, "shapes": other}}
        for i, (value, other) in enumerate(zip(scores, soft, strict=True))
    ]
    return {"suite": "shapes_strict", "best_guidance": guidance, "guidance": {}, "seeds": 3, "num_inference_steps": 8,
            "images_per_prompt": 4, "prompts": prompts}  # fmt: skip


def file_run(folder, gain, *, soft=0.2, heldout=(0.3, 0.4), cost=(600, 400)):
    folder.mkdir(parents=True)
    before = evaluation([0.2 + 0.02 * i for i in range(10)], [0.3] * 10, 3.0)
    after = evaluation([0.2 + 0.02 * i + gain for i in range(10)], [0.3 + soft] * 10, 2.0)
    (folder / "before.json").write_text(json.dumps(before))
    (folder / "after.json").write_text(json.dumps(after))
    (folder / "comparison.json").write_text(json.dumps(compare(before, after)))
    (folder / "config.yaml").write_text(yaml.safe_dump({"reward_funcs": ["shapes"]}))
    with (folder / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "forwards", "backwards", "seconds", "reward", "heldout"])
        writer.writeheader()
        for i, score in enumerate(heldout, 1):
            part = [value * i // len(heldout) for value in cost]
            writer.writerow(
                dict(step=i, forwards=part[0], backwards=part[1], seconds=60.0 * i, reward=i, heldout=score)
            )


@pytest.fixture
def kept(tmp_path):
    file_run(tmp_path / "good" / "seed-0", 0.10)
    file_run(tmp_path / "good" / "seed-1", 0.12, cost=(1600, 400))
    file_run(tmp_path / "hacker" / "seed-0", -0.10, soft=0.4, heldout=(0.4, 0.45, 0.3))
    file_run(tmp_path / "scattered" / "seed-0", 0.0, soft=0.0)
    file_run(tmp_path / "scattered" / "seed-1", 0.08, soft=0.0)
    return tmp_path


def test_rows_average_seeds_and_stand_by_gain(kept):
    found = board.rows(kept)
    assert [row.name for row in found] == ["good", "scattered", "hacker"]
    good = found[0]
    assert good.gain == pytest.approx(0.11) and good.seeds == 2 and good.gains == pytest.approx((0.10, 0.12))
    assert good.evaluations == 1500 and good.minutes == pytest.approx(2.0)


def test_what_hacks_and_what_is_unstable(kept):
    found = {row.name: row for row in board.rows(kept)}
    assert {name: (row.hacks, row.unstable) for name, row in found.items()} == {
        "good": (False, False),
        "hacker": (True, True),
        "scattered": (False, True),
    }
    assert found["hacker"].fallen == pytest.approx(0.15) and found["scattered"].scatter == pytest.approx(
        0.0566, abs=1e-3
    )


def test_table_and_reading_say_what_the_rows_hold(kept):
    found = board.rows(kept)
    lines = board.table(found).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| good | 2 | 0.290 -> 0.400 | +0.110 [")
    text = board.reading(found)
    assert "Most gain per model evaluation among those: good" in text and "both at 95 %: hacker." in text
    assert "hacker, scattered" in text or "scattered, hacker" in text
    assert board.reading([]) == "No runs are kept yet."


def test_the_budget_pays_for_whole_roll_outs():
    config = RunConfig(updates_per_rollout=2, num_iterations=3)
    assert leaderboard.steps_within(config, 1000.0, 4999) == 4 * 6
    with pytest.raises(ValueError, match="budget: 999"):
        leaderboard.steps_within(config, 1000.0, 999)


def test_full_fine_tuning_pays_two_for_a_backward(tmp_path):
    for rank, expected in ((4, 30 + 5), (0, 30 + 2 * 5)):
        run = tmp_path / str(rank)
        run.mkdir()
        (run / "config.yaml").write_text(f"lora_r: {rank}\n")
        steps = [{"event": "step", "step": i, "forward/train": 10, "forward/preflight": 7, "backward/train": n}
                 for i, n in ((1, 2), (2, 3), (3, 0))]  # fmt: skip
        (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
        assert leaderboard.spent(run) == expected


def test_kept_runs_are_not_run_again_and_new_ones_get_equal_budgets(tmp_path, monkeypatch):
    calls = []

    def fake(recipe, folder, seed, **keys):
        calls.append((recipe, seed, keys))
        return 0 if recipe == "awm" else 1

    monkeypatch.setattr(leaderboard, "HERE", tmp_path)
    monkeypatch.setattr(leaderboard, "train", fake)
    monkeypatch.setattr(leaderboard, "probe", lambda recipe, known: 1000.0)
    monkeypatch.setattr(leaderboard, "keep", lambda run, target: file_run(target, 0.1))
    assert leaderboard.run_one("awm", 1, 5000, tmp_path / "runs")
    assert leaderboard.run_one("awm", 1, 5000, tmp_path / "runs")
    assert len(calls) == 1 and calls[0][2]["max_train_steps"] == 5 and calls[0][2]["resume_from_checkpoint"] == "auto"
    assert not leaderboard.run_one("mix_grpo", 0, 5000, tmp_path / "runs")
    assert not (tmp_path / "shapes-flow" / "mix_grpo").exists()


def test_what_a_roll_out_costs_is_measured_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(leaderboard, "train", lambda recipe, run, seed, **keys: calls.append(keys) or 0)
    monkeypatch.setattr(leaderboard, "spent", lambda run: 3600)
    known = tmp_path / "awm" / "cost.txt"
    assert leaderboard.probe("awm", known) == leaderboard.probe("awm", known) == 3600 / leaderboard.PROBED
    assert len(calls) == 1 and calls[0]["compare"] == "false"


def test_the_figure_of_a_method_has_a_line_per_seed_in_each_panel(tmp_path):
    draw = load("method_curves").draw
    for seed in (0, 1):
        file_run(tmp_path / "awm" / f"seed-{seed}", 0.1, heldout=(0.3, 0.4 + seed / 10))
    draw(tmp_path / "awm", tmp_path / "images" / "awm.svg")
    figure = ElementTree.fromstring((tmp_path / "images" / "awm.svg").read_text())
    charts = [node for node in figure.iter() if node.get("data-lines")]
    assert [[name for name, _ in json.loads(chart.get("data-lines"))] for chart in charts] == [["seed 0", "seed 1"]] * 2
    assert json.loads(charts[1].get("data-lines"))[1][1] == [[1, 0.3], [2, 0.5]]
    with pytest.raises(ValueError, match="keep a run"):
        draw(tmp_path / "none", tmp_path / "none.svg")


def test_the_page_is_the_generated_one():
    """Whoever keeps a run writes the page again: python benchmarks/alignment/leaderboard.py --table."""
    assert leaderboard.PAGE.read_text(encoding="utf-8") == leaderboard.page()


def test_every_method_takes_part_and_nothing_else():
    assert {"flow_grpo", "awm", "tempflow_grpo"} <= set(leaderboard.recipes())
    assert not {"quickstart", "own_reward", "clip_reward", "two_rewards"} & set(leaderboard.recipes())
