from __future__ import annotations

import pytest
import torch

from diffalign.losses.regularizers import k1, k2, k3

LOGITS = torch.tensor([0.3, -1.1, 0.9, 0.0], dtype=torch.float64)
REF = torch.tensor([-0.2, 0.4, 0.1, 0.5], dtype=torch.float64).log_softmax(0)


def divergence(logits: torch.Tensor, *, reverse: bool) -> torch.Tensor:
    """KL(p || ref) when reverse, else KL(ref || p), by enumeration."""
    p = logits.log_softmax(0)
    return (p.exp() * (p - REF)).sum() if reverse else (REF.exp() * (REF - p)).sum()


def sampled(estimate, logits: torch.Tensor) -> torch.Tensor:
    """Expectation over samples of the policy, by enumeration: only the log-probs of the samples carry a gradient."""
    p = logits.log_softmax(0)
    return (p.detach().exp() * estimate(p - REF)).sum()


@pytest.mark.parametrize("estimate", [k1, k3])
def test_values_of_k1_and_k3_are_unbiased(estimate) -> None:
    assert sampled(estimate, LOGITS).item() == pytest.approx(divergence(LOGITS, reverse=True).item(), abs=1e-12)


def test_value_of_k2_is_biased() -> None:
    assert abs(sampled(k2, LOGITS) - divergence(LOGITS, reverse=True)) > 0.01


def test_gradients_are_of_three_different_things() -> None:
    logits = LOGITS.clone().requires_grad_()
    grad = {f: torch.autograd.grad(sampled(f, logits), logits)[0] for f in (k1, k2, k3)}
    reverse = torch.autograd.grad(divergence(logits, reverse=True), logits)[0]
    forward = torch.autograd.grad(divergence(logits, reverse=False), logits)[0]
    assert torch.allclose(grad[k1], torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(grad[k2], reverse, atol=1e-12)
    assert torch.allclose(grad[k3], forward, atol=1e-12)


def test_k3_is_never_negative_and_zero_only_at_equality() -> None:
    r = torch.linspace(-5, 5, 101, dtype=torch.float64)
    assert (k3(r)[r.abs() > 1e-9] > 0).all() and k3(torch.zeros(1)).item() == 0
    assert k3(torch.tensor([1e-4])).item() == pytest.approx(5e-9, rel=1e-2)  # fp32 keeps digits near zero


@pytest.mark.parametrize("estimate", [k1, k2, k3])
def test_far_out_everything_stays_finite(estimate) -> None:
    r = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], requires_grad=True)
    value = estimate(r)
    (grad,) = torch.autograd.grad(value.sum(), r)
    assert torch.isfinite(value).all() and torch.isfinite(grad).all()
    assert value.shape == r.shape and estimate(r.detach().half()).dtype == torch.float32


def test_k3_pulls_the_right_way_from_above_and_not_the_wrong_way_from_below() -> None:
    r = torch.tensor([-50.0, 50.0], requires_grad=True)
    (grad,) = torch.autograd.grad(k3(r).sum(), r)
    assert grad.tolist() == [0.0, 1.0]
