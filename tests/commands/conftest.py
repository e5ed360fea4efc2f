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
