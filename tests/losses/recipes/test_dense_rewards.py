"""Rewards per step, by name, with the numbers of their papers."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

F64 = torch.float64
NAN = math.nan
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
LOG_RATIO = t([3, -1, NAN], [0.5, 2, 1])


def test_rto() -> None:
    d = t([0.5, 4, NAN], [-0.2, -3, 0.1])
    out = recipes.get("rto")(t(12, -1), d, LOG_RATIO, MASK)
    assert out.tolist() == [
        approx([0.025 - 0.03, 0.05 + 0.01 + 10, 0]),
        approx([-0.01 - 0.005, -0.05 - 0.02, 0.005 - 0.01 - 1]),
    ]
    plain = recipes.get("rto")(t(12, -1), d, LOG_RATIO, MASK, coef=0.0)
    assert plain.tolist() == [approx([-0.03, 10.01, 0]), approx([-0.005, -0.02, -1.01])]


def test_drlc() -> None:
    spans = t([1, -1, NAN], [0, 0, 1])
    out = recipes.get("drlc")(t(2, -3), spans, MASK, terminal_coef=0.5, span_coef=0.1)
    assert out.tolist() == [approx([0.1, 0.9, 0]), approx([0, 0, -1.4])]
    with pytest.raises(ValueError, match="-1, 0 or 1"):
        recipes.get("drlc")(t(2, -3), spans / 2, MASK, terminal_coef=0.5, span_coef=0.1)
    assert recipes.get("drlc")(t(2, -3), spans, MASK, terminal_coef=1.0, span_coef=0.0).sum(1).tolist() == [2, -3]


def test_text2grad() -> None:
    scores, skipped = t([1, -1, 1], [1, 1, -1]), t([0, 1, 0], [0, 0, 0])
    out = recipes.get("text2grad")(scores, skipped, LOG_RATIO, MASK, kl_coef=0.1)
    assert out.tolist() == [approx([1 - 0.3, 0.1, 0]), approx([0.95, 0.8, -1.1])]
    with pytest.raises(ValueError, match="share one shape"):
        recipes.get("text2grad")(scores, skipped[:1], LOG_RATIO, MASK, kl_coef=0.1)


def test_teamwork_potential() -> None:
    phi = t([3, 5, 0, NAN], [3, 1, 7, 0])
    out = recipes.get("teamwork-potential")(t(2, 4), phi, MASK)
    assert out.tolist() == [[2, -3, 0], [-2, 6, -3]]
    assert (out.sum(1) - t(2, 4)).tolist() == [-3, -3]  # the order of samples is what it was
    half = recipes.get("teamwork-potential")(t(2, 4), phi, MASK, gamma=0.5)
    assert half[1].tolist() == [-2.5, 2.5, -3]


def test_reward_design_thesis() -> None:
    rewards, phi = t([1, 2, NAN], [0, 0, 5]), t([3, 5, 1, NAN], [3, 1, 7, 2])
    out = recipes.get("reward-design-thesis")(rewards, phi, MASK, gamma=0.5)
    assert out.tolist() == [[0.5, -2.5, 0], [-2.5, 2.5, -1]]
    change = ((out - t([1, 2, 0], [0, 0, 5])) * t(1, 0.5, 0.25)).sum(1)
    assert change.tolist() == [0.25 * 1 - 3, 0.125 * 2 - 3]
    with pytest.raises(TypeError, match="gamma"):
        recipes.get("reward-design-thesis")(rewards, phi, MASK)
