from __future__ import annotations

import pytest
import torch

from diffalign.shapes import prompts, render_batch, sample_scene


@pytest.fixture(scope="session")
def heldout() -> tuple[list[dict], list, torch.Tensor]:
    """Held-out lines, a scene for each and the rendered images."""
    generator = torch.Generator().manual_seed(7)
    lines = prompts("heldout") * 2
    scenes = [sample_scene(line, generator) for line in lines]
    return lines, scenes, render_batch(scenes)


@pytest.fixture(scope="session")
def noise() -> dict[str, torch.Tensor]:
    """Images without any object."""
    generator = torch.Generator().manual_seed(3)
    uniform = torch.rand(256, 3, 32, 32, generator=generator)
    return {
        "uniform": uniform,
        "gaussian": torch.randn(256, 3, 32, 32, generator=generator) * 0.25 + 0.5,
        "blank": uniform[:, :, :1, :1].expand(-1, -1, 32, 32),
        "grey": torch.full((8, 3, 32, 32), 0.5),
    }
