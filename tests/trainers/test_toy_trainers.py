"""An offline method and one through the sampler run in the same loop: no part of it is overridden."""

from __future__ import annotations

import inspect

import pytest
import torch

from diffalign.models import trainable_state
from diffalign.trainers import BaseTrainer, preflight
from tests.tiny_pipelines import tiny_sd3
from tests.trainers import toy_trainers
from tests.trainers.small_runs import RECORDS, distance, events, redness, same, snapshot

KEYS = {
    "num_inference_steps": 3,
    "max_train_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "lora_r": 4,
    "eval_dataset": None,
    "checkpointing_steps": 2,
}
LOOP = ("train", "_loop", "_begin", "_finish", "_update", "update", "backward", "snapshot", "restore", "_between")


def images():
    generator = torch.Generator().manual_seed(0)
    return [
        {"prompt": record["prompt"], "metadata": {"image": torch.rand(3, 32, 32, generator=generator)}}
        for record in RECORDS * 2
    ]


def make(kind, folder, **keys):
    keys = {**KEYS, "output_dir": str(folder), **keys}
    if kind == "offline":
        return toy_trainers.FineTuneTrainer(tiny_sd3(), keys, train_dataset=images())
    keys["prompts_per_rollout"] = 2
    redness.differentiable = True
    return toy_trainers.LastStepTrainer(tiny_sd3(), keys, redness, train_dataset=RECORDS)


@pytest.mark.parametrize("kind", ["offline", "gradient"])
def test_a_toy_method_trains_saves_and_resumes_bit_for_bit(tmp_path, kind):
    whole = make(kind, tmp_path / "whole")
    start = trainable_state(whole.policy)
    result = whole.train()
    assert result.global_step == 4 and result.metrics["grad_norm"] > 0 and result.report.is_file()
    assert distance(trainable_state(whole.policy), start) > 1e-4
    make(kind, tmp_path / "half", max_train_steps=2).train()
    resumed = make(kind, tmp_path / "half")
    resumed.train(resume_from_checkpoint=True)
    assert same(snapshot(resumed), snapshot(whole))
    assert [line["step"] for line in events(tmp_path / "half")] == [1, 2, 3, 4]


def test_the_toy_through_the_sampler_raises_its_reward(tmp_path):
    trainer = make("gradient", tmp_path, max_train_steps=12, learning_rate=1e-2, checkpointing_steps=0)

    def reward():
        batch = trainer.collect(0)
        terms = [loss.detach() for n in batch.mine for loss in trainer.losses(batch, n, torch.arange(2))]
        return -float(sum(terms))

    before = reward()
    trainer.train()
    assert reward() > before + 0.002  # measured +.0047


@pytest.mark.parametrize("kind", ["offline", "gradient"])
def test_the_doctor_knows_it(tmp_path, kind):
    checks = preflight(make(kind, tmp_path), full=True)
    assert [check for check in checks if not check.passed] == []


def test_a_toy_method_is_short_and_overrides_nothing_of_the_loop():
    for cls in (toy_trainers.FineTuneTrainer, toy_trainers.LastStepTrainer):
        assert len(inspect.getsource(cls).splitlines()) + len(inspect.getsource(cls.Config).splitlines()) <= 40
        assert not set(LOOP) & set(vars(cls)) and set(LOOP) <= set(vars(BaseTrainer))
