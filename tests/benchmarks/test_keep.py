"""What is filed of a run: its curve with costs, its configuration without paths, its evaluations without seeds."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from benchmarks.alignment.keep import keep


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 3, "output_dir": "/home/me/run", "eval_before": "/b"}))
    for name in ("before", "after"):
        (folder / "evaluation" / f"{name}.json").write_text(
            json.dumps({"seeds": [1, 2], "prompts": [], "best_guidance": 2.0})
        )
    step = {"event": "step", "images": 8, "forward/rollout": 10, "forward/preflight": 7, "backward/train": 2,
            "seconds/rollout": 1.5, "reward/a/mean": 0.2, "reward/b/mean": 0.4}  # fmt: skip
    evaluation = {"event": "evaluation", "overall": 0.5, "guidance": 2.0}
    lines = [
        evaluation | {"step": 0, "protocol": "before"}, step | {"step": 1}, step | {"step": 2},
        evaluation | {"step": 2, "overall": 0.6}, evaluation | {"step": 2, "overall": 0.8, "guidance": 1.0},
        evaluation | {"step": 2, "overall": 0.9, "protocol": "after"},
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_costs_add_up_and_the_curve_is_of_one_guidance_scale(run, tmp_path):
    keep(run, tmp_path / "kept" / "seed-3")
    with (tmp_path / "kept" / "seed-3" / "curve.csv").open() as file:
        first, last = csv.DictReader(file)
    assert (first["heldout"], last["heldout"]) == ("", "0.6")
    assert [last[key] for key in ("images", "forwards", "backwards", "seconds")] == ["16", "20", "4", "3.0"]
    assert float(last["reward"]) == pytest.approx(0.3)


def test_no_path_of_the_machine_and_no_list_of_seeds_is_filed(run, tmp_path):
    target = tmp_path / "kept" / "seed-3"
    keep(run, target)
    config = yaml.safe_load((target / "config.yaml").read_text())
    assert config == {"seed": 3, "output_dir": "runs/kept/seed-3", "eval_before": None}
    assert json.loads((target / "after.json").read_text())["seeds"] == 2
