"""Kept runs: the curve with its costs, tables that a run is added to and removed from, no path of a machine."""

from __future__ import annotations

import json

import pytest
import yaml

from benchmarks.alignment.keep import add
from benchmarks.alignment.results import RESULTS, Results
from benchmarks.alignment.run_folder import curve, model_evaluations, read_run
from benchmarks.alignment.summary import evaluation
from diffalign.report import compare
from diffalign.trainers import load_config


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def rows(results, **wanted):
    return [row for row in results.table("summary") if wanted.items() <= row.items()]


def test_costs_add_up_and_the_curve_is_of_one_guidance_scale(run_folder):
    first, last = curve(run_folder("run", 0.1, cost=(20, 4), heldout=(0.5, 0.6)))
    assert (first["heldout"], last["heldout"]) == (0.5, 0.6)
    assert [last[key] for key in ("images", "forwards", "backwards", "seconds")] == [16, 20, 4, 120.0]
    assert last["reward"] == pytest.approx(0.3)


@pytest.mark.parametrize(("rank", "expected"), [(4, 30 + 6), (0, 30 + 2 * 6)])
def test_full_fine_tuning_pays_two_for_a_backward(run_folder, rank, expected):
    assert model_evaluations(curve(run_folder("run", 0.1, cost=(30, 6))), {"lora_r": rank}) == expected


def test_the_summary_of_a_run_is_its_comparison(run_folder, results):
    folder = run_folder("run", 0.1, soft=0.25, heldout=(0.5, 0.3))
    add(read_run(folder), results)
    sides = [json.loads((folder / "evaluation" / f"{side}.json").read_text()) for side in ("before", "after")]
    expected = compare(*sides)
    (row,) = results.table("summary")
    for name in ("before", "after", "gain", "low", "high"):
        assert float(row[name]) == pytest.approx(expected["overall"][name], abs=1e-5)
        if name in ("gain", "low", "high"):
            assert float(row[f"trained_{name}"]) == pytest.approx(expected["rewards"]["shapes"][name], abs=1e-5)
    assert float(row["gain/counting"]) == pytest.approx(0.1, abs=1e-5)
    assert (row["guidance_before"], row["guidance_after"], float(row["lost"])) == ("3", "2", pytest.approx(0.2))
    assert results.table("protocols")[0]["before/single_object"] == "0.240000"


def test_runs_share_one_protocol_one_configuration_and_one_mean(run_folder, results):
    for seed, gain in enumerate((0.10, 0.12)):
        batch = 8 * (seed + 1)
        add(read_run(run_folder(f"{seed}", gain, seed=seed, per_device_train_batch_size=batch)), results)
    assert len(results.table("protocols")) == 1 and len(results.table("scores")) == 2 * 3
    assert [row["differences"] for row in results.table("summary")] == ["", "per_device_train_batch_size=16", ""]
    (mean,) = rows(results, seed="mean")
    assert float(mean["gain"]) == pytest.approx(0.11) and float(mean["evaluations"]) == 1000
    config = (results.folder / "shapes-flow" / "awm.yaml").read_text()
    assert not {"seed", "output_dir", "eval_before"} & set(yaml.safe_load(config)) and "/home" not in config
    assert [row["seed"] for row in results.curve("shapes-flow", "awm")] == ["0", "0", "1", "1"]


def test_a_run_that_is_kept_again_replaces_itself(run_folder, results):
    add(read_run(run_folder("first", 0.1)), results)
    add(read_run(run_folder("again", 0.2)), results)
    (row,) = results.table("summary")
    assert float(row["gain"]) == pytest.approx(0.2) and len(results.curve("shapes-flow", "awm")) == 2


def test_another_base_is_another_protocol_and_does_not_enter_the_mean(run_folder, results):
    add(read_run(run_folder("old", 0.1)), results)
    files = {path: path.read_text() for path in results.folder.rglob("*.*")}
    with pytest.raises(ValueError, match="other seeds of shapes-flow/awm under shapes-flow_8steps"):
        add(read_run(run_folder("new", 0.1, seed=1, base=0.3)), results)
    assert files == {path: path.read_text() for path in results.folder.rglob("*.*")}
    add(read_run(run_folder("other", 0.1, base=0.3), "other"), results)
    first, second = (row["protocol"] for row in results.table("protocols"))
    assert second == f"{first}_2"
    assert evaluation(results, second)["prompts"][0]["score"] == pytest.approx(0.3)


def test_removing_a_method_leaves_the_others_and_removing_the_model_leaves_nothing(run_folder, results):
    for name in ("awm", "other"):
        add(read_run(run_folder(name, 0.1), name), results)
    results.remove("shapes-flow", "awm")
    assert [row["method"] for row in results.table("summary")] == ["other"]
    assert evaluation(results, results.table("protocols")[0]["protocol"])["prompts"]
    results.remove("shapes-flow")
    assert not any(results.table(name) for name in ("summary", "scores", "protocols"))
    assert not list((results.folder / "shapes-flow").iterdir())
    with pytest.raises(ValueError, match="no run of shapes-flow"):
        results.remove("shapes-flow")


def test_a_run_without_its_second_evaluation_is_refused(run_folder):
    folder = run_folder("run", 0.1)
    (folder / "evaluation" / "after.json").unlink()
    with pytest.raises(ValueError, match="after.json is missing"):
        read_run(folder)


def test_the_kept_summary_follows_from_the_kept_scores():
    results = Results()
    row = next(row for row in results.table("summary") if (row["method"], row["seed"]) == ("quickstart", "1"))
    before = evaluation(results, row["protocol"])
    found = compare(before, evaluation(results, row["protocol"], "quickstart", "1"))["overall"]
    assert [f"{found[name]:.6f}" for name in ("gain", "low", "high")] == [row[name] for name in ("gain", "low", "high")]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_a_kept_configuration_can_be_trained_again(path):
    assert load_config(path).reward_funcs
