"""Checklists by name."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

F64 = torch.float64
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


PASSED = t([[1, 1, 1], [1, 0, 0]])  # pass rates 1, 1/2, 1/2


def test_verpo() -> None:
    out = recipes.get("verpo")(PASSED, torch.tensor([[2, 1]]), beta=0.5, gamma=0.9)
    like = math.exp(-0.25 / 0.02)
    easy = math.exp(-1) / (1 + 2 * like + 1e-6)
    hard = math.exp(-0.5) / (2 + like + 1e-6)
    local = easy + 2 * hard, easy
    half = (0.81 + 0.5 * (local[0] - local[1])) / 2
    assert out.tolist() == [approx([half, -half], abs=1e-9)]
    settings = {"alpha": 2.0, "sigma": 0.5, "delta": 0.3}
    like = math.exp(-0.25 / 0.5)
    hard = math.exp(-1) / (2 + like + 0.3)
    out = recipes.get("verpo")(PASSED, torch.tensor([[2, 1]]), beta=0.5, gamma=1.0, **settings)
    assert out[0, 0].item() == approx((1 + hard) / 2)
    alone = recipes.get("verpo")(PASSED, torch.tensor([[2, 1]]), beta=0.0, gamma=0.9)
    assert alone.tolist() == [approx([0.405, -0.405])]


def test_ace_rl() -> None:
    passed = t([1, 1, 0, 0], [1, 1, 1, 1], [1, 0, math.nan, 0])
    assert recipes.get("ace-rl")(passed).tolist() == approx([0.5, 1, 1 / 3])
