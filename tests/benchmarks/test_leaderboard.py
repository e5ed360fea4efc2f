"""The leaderboard: budgets, which runs are run again, the table and its reading."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from benchmarks.alignment import board, leaderboard
from benchmarks.alignment.keep import add
from benchmarks.alignment.method_curves import draw
from benchmarks.alignment.results import Results
from benchmarks.alignment.run_folder import read_run
from diffalign.trainers import OnPolicyConfig


@pytest.fixture
def results(tmp_path, run_folder):
    kept = Results(tmp_path / "results")
    for name, gain, keys in [
        ("good", 0.10, {}),
        ("good", 0.12, {"seed": 1, "cost": (1600, 400)}),
        ("hacker", -0.10, {"soft": 0.4, "heldout": (0.4, 0.45, 0.3)}),
        ("scattered", 0.0, {"soft": 0.0}),
        ("scattered", 0.08, {"seed": 1, "soft": 0.0}),
    ]:
        add(read_run(run_folder(f"{name}-{gain}", gain, **keys), name), kept)
    return kept


def test_methods_average_seeds_and_stand_by_gain(results):
    found = board.methods(results, "shapes-flow")
    assert [method.name for method in found] == ["good", "scattered", "hacker"]
    good = found[0]
    assert good.value("gain") == pytest.approx(0.11) and len(good.runs) == 2
    assert good.value("evaluations") == 1500 and good.value("seconds") == pytest.approx(120)


def test_hacking_and_instability_are_found(results):
    found = {method.name: method for method in board.methods(results, "shapes-flow")}
    assert {name: (method.hacks, method.unstable) for name, method in found.items()} == {
        "good": (False, False),
        "hacker": (True, True),
        "scattered": (False, True),
    }
    assert found["hacker"].value("lost") == pytest.approx(0.15)
    assert found["scattered"].scatter == pytest.approx(0.0566, abs=1e-3)


def test_table_and_reading_say_what_the_summary_holds(results):
    found = board.methods(results, "shapes-flow")
    lines = board.table(found).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| good | 2 | 0.290 -> 0.400 | +0.110 [")
    text = board.reading(found)
    assert "Most gain per model evaluation among those: good" in text and "both at 95 %: hacker." in text
    assert "hacker, scattered" in text or "scattered, hacker" in text
    assert board.reading([]) == "No runs are kept yet."


def test_the_budget_pays_for_whole_roll_outs():
    config = OnPolicyConfig(updates_per_rollout=2, num_iterations=3)
    assert leaderboard.steps_within(config, 1000.0, 4999) == 4 * 6
    with pytest.raises(ValueError, match="budget: 999"):
        leaderboard.steps_within(config, 1000.0, 999)


def test_kept_runs_are_not_run_again_and_new_ones_get_equal_budgets(tmp_path, monkeypatch, run_folder):
    calls = []

    def fake(recipe, folder, seed, **keys):
        calls.append((recipe, seed, keys))
        return 0 if recipe == "awm" else 1

    monkeypatch.setattr(leaderboard, "train", fake)
    monkeypatch.setattr(leaderboard, "probe", lambda recipe, known: 1000.0)
    run_folder("awm/seed-1", 0.1, seed=1)
    results = Results(tmp_path / "results")
    assert leaderboard.run_one("awm", 1, 5000, tmp_path / "runs", results)
    assert leaderboard.run_one("awm", 1, 5000, tmp_path / "runs", results)
    assert len(calls) == 1 and calls[0][2]["max_train_steps"] == 5 and calls[0][2]["resume_from_checkpoint"] == "auto"
    assert not leaderboard.run_one("mix_grpo", 0, 5000, tmp_path / "runs", results)
    assert [row["method"] for row in results.table("summary")] == ["awm"]


def test_the_cost_of_a_roll_out_is_measured_once(tmp_path, monkeypatch, run_folder):
    calls = []

    def fake(recipe, run, seed, **keys):
        calls.append(keys)
        run_folder("probe", 0.1, cost=(3000, 600)).rename(run)
        return 0

    monkeypatch.setattr(leaderboard, "train", fake)
    known = tmp_path / "awm" / "cost.txt"
    assert leaderboard.probe("awm", known) == leaderboard.probe("awm", known) == 3600 / leaderboard.PROBED
    assert len(calls) == 1 and calls[0]["compare"] == "false"


def test_the_figure_of_a_method_has_a_line_per_seed_in_each_panel(tmp_path, run_folder):
    results = Results(tmp_path / "results")
    for seed in (0, 1):
        add(read_run(run_folder(f"{seed}", 0.1, seed=seed, heldout=(0.3, 0.4 + seed / 10))), results)
    draw(results.curve("shapes-flow", "awm"), tmp_path / "images" / "awm.svg")
    figure = ElementTree.fromstring((tmp_path / "images" / "awm.svg").read_text())
    charts = [node for node in figure.iter() if node.get("data-lines")]
    assert [[name for name, _ in json.loads(chart.get("data-lines"))] for chart in charts] == [["seed 0", "seed 1"]] * 2
    assert json.loads(charts[1].get("data-lines"))[1][1] == [[1, 0.3], [2, 0.5]]
    with pytest.raises(ValueError, match="keep a run"):
        draw([], tmp_path / "none.svg")


def test_the_page_is_the_generated_one():
    """Whoever keeps a run writes the page again: python benchmarks/alignment/leaderboard.py --table."""
    assert leaderboard.PAGE.read_text(encoding="utf-8") == leaderboard.page(Results())


def test_every_method_takes_part_and_nothing_else():
    assert {"flow_grpo", "awm", "tempflow_grpo"} <= set(leaderboard.recipes())
    assert not {"quickstart", "own_reward", "clip_reward", "two_rewards"} & set(leaderboard.recipes())
