"""The recipes on two rewards, on a reward of one's own and on a learnt one run as they are, for two optimiser steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffalign.trainers import Trainer, load_config

RECIPES = Path(__file__).resolve().parents[2] / "scripts" / "recipes" / "shapes-flow"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "rewards"),
    [
        ("two_rewards", {"shapes", "jpeg_compressibility"}),
        ("own_reward", {"warmth"}),
        ("clip_reward", {"clip_shapes-clip"}),
    ],
)
def test_a_recipe_trains(recipe, rewards, tmp_path, monkeypatch):
    if recipe == "clip_reward":
        pytest.importorskip("open_clip")
    monkeypatch.chdir(RECIPES.parents[2])  # the file of one's own is named from the root of the checkout
    short = {"max_train_steps": 2, "compare": False, "output_dir": str(tmp_path / "run")}
    trainer = Trainer(args=load_config(RECIPES / f"{recipe}.yaml", short))
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert len(steps) == 2 and all(step["grad_norm"] > 0 and step["advantage/abs_mean"] > 0.1 for step in steps)
    assert {key.split("/")[1] for key in steps[0] if key.startswith("reward/")} == rewards
    assert steps[0]["group/zero_std"] < 0.9
