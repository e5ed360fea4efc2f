"""Running commands in this process, and a tiny model for those that need one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from diffalign.commands import main
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
