"""`diffalign train`, `doctor` and `train --check` with a trainer that only takes notes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from diffalign import trainers
from diffalign.trainers import Check, make_config
from diffalign.trainers.run.interrupt import Terminated


@pytest.fixture
def notes(monkeypatch):
    """What the trainer was given and asked; `notes.error` is raised by its `train`."""
    seen = SimpleNamespace(config=None, resumed="never trained", error=None, checks=[], full=None)

    class Trainer:
        def __init__(self, args):
            seen.config = args

        def train(self, resume_from_checkpoint=None):
            seen.resumed = resume_from_checkpoint
            if seen.error:
                raise seen.error

    def preflight(trainer, *, full):
        seen.full = full
        return seen.checks

    monkeypatch.setattr(trainers, "Trainer", Trainer)
    monkeypatch.setattr(trainers, "preflight", preflight)
    return seen


def test_file_and_options_reach_the_trainer(diffalign, notes, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lora_r: 8\nseed: 1\n")
    outcome = diffalign("train", "--config", path, "--seed", "4", "--clip-range", "1e-5")
    assert outcome.status == 0, outcome.err
    assert notes.config == make_config({"lora_r": 8, "seed": 4, "epsilon": 1e-5})
    assert notes.resumed is None


def test_a_run_can_be_resumed(diffalign, notes):
    assert diffalign("train", "--resume_from_checkpoint", "latest").status == 0
    assert notes.resumed == "latest"


def test_a_wrong_key_never_reaches_the_trainer(diffalign, notes):
    outcome = diffalign("train", "--num_generatons", "4")
    assert outcome.status == 2 and "did you mean `--num_generations`" in outcome.err
    assert notes.config is None


@pytest.mark.parametrize("error", [ValueError("this run would not learn"), OSError("disk full")])
def test_what_the_trainer_refuses_is_one_line(diffalign, notes, error):
    notes.error = error
    outcome = diffalign("train")
    assert outcome.status == 2 and str(error) in outcome.err and outcome.err.startswith("diffalign train: ")


def test_ctrl_c_names_the_newest_checkpoint(diffalign, notes, tmp_path):
    for step in (20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    notes.error = KeyboardInterrupt()
    outcome = diffalign("train", "--output_dir", tmp_path)
    assert outcome.status == 130
    assert str(tmp_path / "checkpoint-100") in outcome.err and "--resume_from_checkpoint latest" in outcome.err


def test_sigterm_exits_with_143_and_names_the_newest_checkpoint(diffalign, notes, tmp_path):
    (tmp_path / "checkpoint-20").mkdir()
    notes.error = Terminated("stopped at step 20")
    outcome = diffalign("train", "--output_dir", tmp_path)
    assert outcome.status == 143 and str(tmp_path / "checkpoint-20") in outcome.err


def test_ctrl_c_before_the_first_checkpoint_says_so(diffalign, notes, tmp_path):
    notes.error = KeyboardInterrupt()
    outcome = diffalign("train", "--output_dir", tmp_path / "run")
    assert outcome.status == 130 and "before the first checkpoint" in outcome.err


@pytest.mark.parametrize("words", [("doctor",), ("train", "--check")])
def test_the_full_preflight_is_a_table(diffalign, notes, words):
    notes.checks = [
        Check("ratio at step 0", True, "0.0e+00", "never shown"),
        Check("reward spread", False, "0 of 8 groups", "Take another reward."),
    ]
    outcome = diffalign(*words, "--seed", "3")
    assert outcome.status == 1 and notes.full is True and notes.resumed == "never trained"
    assert notes.config == make_config({"seed": 3})
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["ok", "ratio", "at", "step", "0", "0.0e+00"] in lines
    assert ["FAILED", "reward", "spread", "0", "of", "8", "groups"] in lines
    assert "reward spread: Take another reward." in outcome.out and "never shown" not in outcome.out
    assert outcome.out.splitlines()[-1] == "1 of 2 checks failed"


def test_a_sound_run_passes_the_doctor(diffalign, notes):
    notes.checks = [Check("ratio", True, "1", "")]
    outcome = diffalign("doctor")
    assert outcome.status == 0 and outcome.out.endswith("all 1 checks passed\n") and "what to do" not in outcome.out


def test_a_broken_prompt_file_is_named_with_its_line(diffalign, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a photo of a red circle"}\n{"prompt": \n')
    outcome = diffalign("train", "--train_dataset", prompts, "--output_dir", tmp_path / "run")
    assert outcome.status == 2 and "prompts.jsonl, line 2: not JSON" in outcome.err
    assert not Path(tmp_path / "run").exists()
