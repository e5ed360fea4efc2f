from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def images() -> Tensor:
    """`(4, 3, 8, 8)` random images."""
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Lays down an installed distribution with one reward entry point, as an installer would."""

    def lay(distribution: str, name: str, source: str) -> Path:
        site = tmp_path / distribution
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        module = f"{distribution.replace('-', '_')}_module"
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[diffalign.rewards]\n{name} = {module}:make\n")
        monkeypatch.syspath_prepend(str(site))
        return site

    return lay


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Small random image rewards, saved as the true ones are published: name -> arguments of `rewards.get`."""
    pytest.importorskip("open_clip")
    from tests.tiny_rewards import publish

    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and the hub's own offline switch set."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"
