"""Confidence pays above the mean and costs below it."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes.ppo_c import cdpo, confidence_difference, confidence_threshold, ppo_m

approx = pytest.approx


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


F64 = torch.float64
BOTH = pytest.mark.parametrize("correct", [confidence_difference, confidence_threshold])


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_by_hand() -> None:
    r, c = t(3, -2, 1.5), t(0.9, 0.9, 0.2)
    expected = t(3 + 0.5 * 2 * 0.4, -2 + 0.5 * -3 * 0.4, 1.5 + 0.5 * 0.5 * -0.3)
    assert torch.allclose(confidence_difference(r, c, 1.0), expected)
    expected = t(3 + 0.5 * 3 * 0.4, -2 - 0.5 * 2 * 0.4, 1.5 + 0.5 * 1.5 * -0.3)
    assert torch.allclose(confidence_threshold(r, c, torch.tensor(1.0)), expected)


@BOTH
def test_nothing_changes_without_an_opinion(correct) -> None:
    r = t(3, -2, 1.5)
    assert torch.equal(correct(r, t(0.5, 0.5, 0.5), 1.0), r)
    assert torch.equal(correct(r, t(0.9, 0.1, 0.3), r[0].item())[:1], r[:1])
    assert torch.equal(correct(r, t(0.9, 0.1, 0.3), 1.0, weight=0.0), r)


@BOTH
def test_strength_and_bound(correct) -> None:
    r, c = t(2.0), t(1.0)
    half, full = correct(r, c, 0.0), correct(r, c, 0.0, weight=1.0)
    assert (half.item(), full.item()) == (2.5, 3.0)
    assert correct(t(9.9, -9.9), t(1.0, 1.0), 0.0).tolist() == [10.0, -10.0]
    assert correct(t(9.9, -9.9), t(1.0, 1.0), 0.0, bound=9.0).tolist() == [9.0, -9.0]


@BOTH
def test_gradients(correct) -> None:
    r, c = t(3, -2, 1.5).requires_grad_(), t(0.9, 0.9, 0.2).requires_grad_()
    mean = torch.tensor(1.0, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: correct(x, c.detach(), 1.0), (r,))
    out = correct(r, c, mean).sum()
    grads = torch.autograd.grad(out, (r, c, mean), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is None and grads[2] is None


@BOTH
def test_precision_and_what_could_not_be_scored(correct) -> None:
    out = correct(torch.tensor([1.0, math.nan], dtype=torch.half), torch.tensor([1, 1]), 0.0)
    assert out.dtype == torch.float32 and out.isnan().tolist() == [False, True]
    assert correct(t(1, 2), t(math.nan, 1), 0.0).isnan().tolist() == [True, False]


@BOTH
def test_bad_input(correct) -> None:
    with pytest.raises(ValueError, match="confidence must be"):
        correct(t(1.0), t(1.1), 0.0)
    with pytest.raises(ValueError, match="share one shape"):
        correct(t(1.0, 2.0), t(1.0), 0.0)
    with pytest.raises(ValueError, match="weight"):
        correct(t(1.0), t(1.0), 0.0, weight=-0.1)
    with pytest.raises(ValueError, match="bound"):
        correct(t(1.0), t(1.0), 0.0, bound=0.0)


def test_ppo_c() -> None:
    first = recipes.get("ppo-c")(None, t(1, 5), t(0.9, 0.9))  # mean 3
    assert first.mean.item() == 3 and first.reward.tolist() == approx([1 - 0.5 * 0.4, 5 + 0.5 * 5 * 0.4])
    second = recipes.get("ppo-c")(first.mean, t(13, 13), t(1, 0))
    assert second.mean.item() == approx(4) and second.reward.tolist() == approx([10, 13 - 0.5 * 13 * 0.5])
    assert recipes.get("ppo-c")(first.mean, t(13), t(0.5)).reward.tolist() == [10]
    assert recipes.get("ppo-c")(None, t(1, 5), t(0.5, 0.5)).reward.tolist() == [1, 5]


def test_the_losses_beside_ppo_c() -> None:
    scores = t(2), t(0.5), t(0.3), t(1)
    quartet = softplus(-1.5) + softplus(-0.7)
    assert ppo_m(*scores).item() == approx(quartet)
    out = cdpo(*scores, t(3), beta=0.1)
    assert out.item() == approx((softplus(-0.15) + softplus(-0.07)) / 2 + 3)
    with pytest.raises(ValueError, match="share one shape"):
        cdpo(*scores, t(3, 4), beta=0.1)
