"""Callbacks, the result of a run, evaluation on request, pictures while training."""

from __future__ import annotations

import json

import pytest

from diffalign.trainers import Callback
from tests.trainers.small_runs import RECORDS, events

HELD_OUT = {"eval_records": RECORDS, "eval_steps": 2, "eval_images_per_prompt": 1, "eval_guidance_scales": [1.0]}


class Recorder(Callback):
    """Notes what is called; asks to stop after a step."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = [], stop_after

    def on_step_end(self, trainer, step, metrics):
        assert metrics["grad_norm"] > 0 and trainer.state.step == step
        self.calls.append(f"step {step}")
        return step == self.stop_after

    def on_evaluate(self, trainer, step, metrics):
        assert "overall" in metrics and metrics["guidance"] == 1.0
        self.calls.append(f"evaluate {step}")

    def on_save(self, trainer, path):
        assert path.is_dir()
        self.calls.append(path.name)

    def on_train_end(self, trainer):
        self.calls.append("end")


def test_callbacks_are_called_in_order_and_may_end_the_run(make):
    recorder = Recorder(stop_after=2)
    trainer = make(max_train_steps=6, **HELD_OUT)
    trainer.callbacks.append(recorder)
    result = trainer.train()
    assert recorder.calls == ["step 1", "step 2", "evaluate 2", "checkpoint-2", "end"]
    assert result.global_step == 2 and result.comparison is None and result.report.is_file()


def test_the_result_has_the_last_numbers_and_the_gain(make, folder):
    result = make(**{**HELD_OUT, "eval_steps": 0}, compare=True).train()
    assert result.metrics["step"] == result.global_step == 2
    assert result.metrics["reward/redness/mean"] == events(folder)[-1]["reward/redness/mean"]
    assert {"gain", "low", "high"} <= set(result.comparison["overall"])


def test_evaluate_scores_the_present_weights_and_writes_nothing(make, folder):
    trainer = make(**HELD_OUT)
    found = trainer.evaluate(guidance_scales=[1.0, 2.0], images_per_prompt=2)
    assert set(found["guidance"]) == {"1.0", "2.0"} and found["images_per_prompt"] == 2
    assert not folder.exists() and not trainer.policy.meter.counts
    with pytest.raises(ValueError, match="needs held-out prompts"):
        make().evaluate()


def test_validation_prompts_are_drawn_at_every_evaluation(make, folder):
    from PIL import Image

    make(max_train_steps=4, **HELD_OUT, validation_prompts=["a green cross", "two red circles"]).train()
    assert sorted(path.name for path in (folder / "images").glob("step-*.png")) == [
        "step-000002.png",
        "step-000004.png",
    ]
    samples = json.loads((folder / "images" / "samples.json").read_text())
    assert samples["prompts"] == ["a green cross", "two red circles"]
    with Image.open(folder / "images" / "step-000002.png") as one, Image.open(folder / "images/step-000004.png") as two:
        assert one.size == two.size and one.tobytes() != two.tobytes()


def test_ten_checkpoints_are_the_default(make, folder):
    trainer = make(max_train_steps=40, checkpointing_steps=None)
    assert trainer.checkpointing_steps == 4
    assert make(checkpointing_steps=None).checkpointing_steps == 1
    assert make(checkpointing_steps=0).checkpointing_steps == 0


def test_an_extended_schedule_goes_on_at_its_own_rate(make, folder):
    make(name="whole", lr_scheduler="cosine", max_train_steps=8).train()
    make(lr_scheduler="cosine", max_train_steps=4).train()
    make(lr_scheduler="cosine", max_train_steps=8).train("latest")
    rates = [[line["lr"] for line in events(path)] for path in (folder.parent / "whole", folder)]
    assert rates[1][4:] == pytest.approx(rates[0][4:]) and rates[1][4] > 0


def test_trackers_have_a_tag_per_guidance_scale_pictures_and_no_step_twice(make, folder):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    keys = {**HELD_OUT, "report_to": ["tensorboard"], "guidance_scale": 2.0, "max_train_steps": 2}
    make(**keys).train()
    make(**{**keys, "max_train_steps": 4}).train("latest")
    found = event_accumulator.EventAccumulator(str(folder / "diffalign"))
    found.Reload()
    assert [event.step for event in found.Scalars("step/grad_norm")] == [1, 2, 3, 4]
    assert "evaluation/guidance 2/overall" in found.Tags()["scalars"] and found.Tags()["images"]


def test_wandb_without_a_key_is_a_sentence(monkeypatch):
    import sys
    from types import SimpleNamespace

    from accelerate import tracking

    from diffalign.trainers.run.trackers import check_trackers

    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["wandb"])
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(api=SimpleNamespace(api_key=None)))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(ValueError, match="wandb login"):
        check_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])
