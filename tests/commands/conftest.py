"""Running commands in this process, and a tiny model for those that need one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from diffalign.commands import main
from diffalign.models import add_lora, load_policy, save_trained, trainable_parameters
from tests.rewards.conftest import install as install
from tests.tiny_pipelines import tiny_sd3


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def diffalign(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs `diffalign WORDS...`; its status, stdout and stderr."""
    monkeypatch.delenv("DIFFALIGN_TRACEBACK", raising=False)

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a StableDiffusion3Pipeline of random weights, 32x32 pixels."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd3"
    tiny_sd3().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_lora(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a LoRA for `tiny_model` that changes its images visibly."""
    policy = load_policy(str(tiny_model))
    add_lora(policy, rank=2, alpha=16.0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable_parameters(policy):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return save_trained(policy, tmp_path_factory.mktemp("loras") / "lora")


def train(folder: Path, model: Path, *words: str) -> Path:
    """A run of two updates on the tiny model, with a checkpoint after each."""
    keys = (
        "--num_inference_steps 3 --guidance_scale 3 --num_generations 2 --prompts_per_rollout 2 --learning_rate 0.05 "
        "--updates_per_rollout 1 --max_train_steps 2 --checkpointing_steps 1 --lora_r 2 --lora_alpha 16 --epsilon 1 "
        "--preflight false --max_train_samples 2 --max_eval_samples 3 --eval_guidance_scales 1 3 --reward_funcs jpeg "
        "--eval_images_per_prompt 2 --eval_num_inference_steps 2"
    )
    status = main(["train", "--model", str(model), "--output_dir", str(folder), *keys.split(), *words])
    assert status == 0
    return folder


@pytest.fixture(scope="session")
def lora_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished LoRA run on `tiny_model`."""
    return train(tmp_path_factory.mktemp("runs") / "lora", tiny_model, "--negative_prompt", "blue square")


@pytest.fixture(scope="session")
def full_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of full fine-tuning on `tiny_model`."""
    words = ("--lora_r", "0", "--ema_decay", "0.5", "--learning_rate", "0.005")
    return train(tmp_path_factory.mktemp("runs") / "full", tiny_model, *words)


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """A terminal of 120 columns, wherever the tests run."""
    monkeypatch.setenv("COLUMNS", "120")
