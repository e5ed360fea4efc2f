"""A small differentiable policy whose every part can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from diffalign.sampling import Policy


class ToyPolicy(nn.Module, Policy):
    """A prompt-conditioned velocity field; `decode` is a squash of three channels."""

    latent_shape = (3, 4, 4)
    prediction = "flow"
    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))
        self.calls: list[int] = []
        self.encoded: list[str] = []

    def encode(self, prompts: Sequence[str], *, negative: bool = False) -> dict[str, Tensor]:
        self.encoded += prompts
        return {"text": torch.tensor([[sum(map(ord, p)) % 7 / 7.0] for p in prompts])}

    def predict(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        self.calls.append(x.shape[0])
        plane = (t.float() / 1000 + cond["text"][:, 0]).reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        weight = self.net[0].weight
        return self.net(torch.cat([x.to(weight.dtype), plane.to(weight.dtype)], 1)) - 0.5 * x.to(weight.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.float().sigmoid()


@pytest.fixture
def toy() -> ToyPolicy:
    return ToyPolicy()


@pytest.fixture
def toy_half() -> ToyPolicy:
    return ToyPolicy(torch.bfloat16)
