from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import group_advantage, no_scale, recipes

F64 = torch.float64


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


def test_s_grpo_early_exit() -> None:
    s_grpo = recipes.get("s-grpo-early-exit")
    out = s_grpo(torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]))
    assert out[0].tolist() == pytest.approx([-0.35, 0.65, -0.35, 0.15, -0.1]) and out[1].tolist() == [0.0] * 5
    masked = s_grpo(torch.tensor([[1, 1, 0, 1]]), mask=torch.tensor([[0, 1, 1, 1]]))
    assert masked[0].tolist() == pytest.approx([0.0, 0.5, -0.5, 0.0])


def test_hbpo() -> None:
    hbpo = recipes.get("hbpo")
    assert dict(hbpo.defaults) == {"longest": 4096.0}
    rewards = f64([1.0, 2.0, 3.0, 6.0])
    budget = f64([512.0, 512.0, 2560.0, 2560.0])
    std = math.sqrt(14 / 3) + 1e-6
    short = 1.5 - 4 * math.cos(math.pi / 16)
    long = 4.5 - 4 * math.cos(math.pi * 5 / 16)
    want = [-2 / std + short, -1 / std + short, long, 3 / std + long]  # once, not twice as in the code
    assert hbpo(rewards, budget)[0].tolist() == pytest.approx(want)
    half = hbpo(rewards, torch.full((1, 4), 5.0), longest=10.0)[0, 2].item()
    assert half == pytest.approx(3 - 4 * math.sqrt(0.5), abs=1e-6)
    masked = hbpo(rewards, budget, mask=torch.tensor([[1, 0, 1, 1]]))[0]
    assert masked[1] == 0 and masked[0].item() == pytest.approx(
        (1 - 10 / 3) / (math.sqrt(19 / 3) + 1e-6) + 1 - 4 * math.cos(math.pi / 16)
    )


def test_brpo() -> None:
    brpo = recipes.get("brpo")
    rewards, prob = f64([[1.0, 0.0, 2.0], [0.0, 4.0, 1.0]]), f64(0.2, 0.3, 0.5)
    out = brpo(rewards, prob)[0]
    group = [1.45, 1.35, 0.75]
    first = [1.2 - group[0], 1.0 - (0.8 / 3 + 2 * group[1] / 3), 1.0 - (2 * (1 / 3) * 0.5 / 3 + group[2] / 3)]
    second = [1.7 - group[0], 1.7 - 2 * group[1] / 3, 0.5 - (2 * (8 / 3) * 0.5 / 3 + group[2] / 3)]
    assert out[0].tolist() == pytest.approx(first) and out[1].tolist() == pytest.approx(second)
    one = brpo(rewards[:, :, :1], torch.ones(1, dtype=F64))[..., 0]
    assert torch.allclose(one, group_advantage(rewards[..., 0], scale=no_scale), atol=1e-12)
