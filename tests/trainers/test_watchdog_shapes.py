"""On the embedded world: a reward that flat pictures please is stopped in time, the exact reward is not stopped."""

from __future__ import annotations

import pytest

from benchmarks.alignment.watchdog import ALLOWED, config, outcome, read
from diffalign.trainers import Trainer
from tests.trainers.small_runs import events

pytestmark = pytest.mark.slow


def watched(folder, reward, steps, **keys):
    args = config(reward, 1, steps, 2, folder, {"learning_rate": 5e-4, "watchdog": "stop", **keys})
    trainer = Trainer(args=args)
    trainer.train()
    return trainer, read(folder, next(iter(trainer.rewards)))


def test_a_reward_that_is_hacked_is_stopped_before_it_has_cost_much(tmp_path):
    trainer, rows = watched(tmp_path / "run", "jpeg", 24)
    assert trainer.state.step < 24 and rows[-1]["alarms"] > 0, rows
    assert rows[-1]["trained"] > rows[0]["trained"]
    found = outcome(1, rows)
    assert found.alarm == trainer.state.step and found.fall < ALLOWED
    assert "jpeg_compressibility rose" in events(tmp_path / "run", "warning")[0]["message"]


def test_the_exact_reward_is_not_stopped(tmp_path):
    trainer, rows = watched(tmp_path / "run", "shapes", 12)
    assert trainer.state.step == 12 and not any(row["alarms"] for row in rows)
    assert events(tmp_path / "run", "warning") == []
