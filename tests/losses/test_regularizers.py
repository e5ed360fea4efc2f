from __future__ import annotations

import pytest
import torch

from diffalign.losses import regularizers as R
from diffalign.losses.diffusion import gaussian_kl, latent_mean, latent_sum
from diffalign.losses.regularizers import k1, k2, k3, score_function_kl, unequal_gaussian_kl

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
    edge = torch.tensor([-20.0, -20.5], dtype=torch.float64)
    assert k3(edge).tolist() == pytest.approx([485165195.40979 - 21] * 2)


def test_score_function_kl_has_the_gradient_of_the_reverse_kl() -> None:
    logits = LOGITS.clone().requires_grad_()
    (reverse,) = torch.autograd.grad(divergence(logits, reverse=True), logits)
    for baseline in (0.0, 0.7, torch.tensor(-2.0)):
        loss = sampled(lambda r, b=baseline: score_function_kl(r, baseline=b), logits)
        assert torch.allclose(torch.autograd.grad(loss, logits)[0], reverse, atol=1e-12)


def test_score_function_kl_by_hand() -> None:
    r = torch.tensor([0.5, -2.0], dtype=torch.float16, requires_grad=True)
    loss = score_function_kl(r, baseline=0.25)
    assert loss.tolist() == [0.125, 4.5] and loss.dtype == torch.float32
    assert torch.autograd.grad(loss.sum(), r)[0].tolist() == [0.25, -2.25]
    assert score_function_kl(torch.tensor([3.0])).item() == 9


def means(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 3, 4, dtype=torch.float64, generator=gen) for _ in range(2))


@pytest.mark.parametrize("reduce", [latent_mean, latent_sum])
def test_gaussian_kl_agrees_with_torch(reduce) -> None:
    mean, ref = means()
    std = torch.tensor([0.4, 1.3], dtype=torch.float64)
    ours = unequal_gaussian_kl(mean, ref, std, 0.9, reduce=reduce)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std[:, None, None]), torch.distributions.Normal(ref, 0.9)
    )
    assert torch.allclose(ours, reduce(theirs), atol=1e-12)
    full = std[:, None, None].expand_as(mean)
    assert torch.allclose(unequal_gaussian_kl(mean, ref, full, torch.tensor(0.9), reduce=reduce), ours, atol=1e-7)


def test_gaussian_kl_of_one_std_is_the_step_kl_and_of_two_has_a_direction() -> None:
    mean, ref = means()
    same = unequal_gaussian_kl(mean, ref, 0.3, 0.3, reduce=latent_sum)
    assert torch.allclose(same, gaussian_kl(mean, ref, 0.3, reduce=latent_sum), atol=1e-9)
    assert (unequal_gaussian_kl(mean, mean, 0.3, 0.5, reduce=latent_sum) > 0.1).all()
    there = unequal_gaussian_kl(mean, ref, 0.3, 0.5, reduce=latent_sum)
    assert not torch.allclose(there, unequal_gaussian_kl(ref, mean, 0.5, 0.3, reduce=latent_sum), rtol=0.1)


def test_gaussian_kl_reaches_the_policy_alone() -> None:
    mean, ref = (x.requires_grad_() for x in means())
    std, std_ref = (torch.tensor([v, 2 * v], dtype=torch.float64, requires_grad=True) for v in (0.4, 0.7))
    loss = unequal_gaussian_kl(mean, ref, std, std_ref, reduce=latent_sum).sum()
    grads = torch.autograd.grad(loss, (mean, ref, std, std_ref), allow_unused=True)
    assert grads[1] is None and grads[3] is None and grads[0].abs().sum() > 0 and grads[2].abs().sum() > 0
    assert torch.autograd.gradcheck(
        lambda m, s: unequal_gaussian_kl(m, ref.detach(), s, std_ref.detach(), reduce=latent_mean), (mean, std)
    )


def test_gaussian_kl_refuses_what_does_not_fit() -> None:
    mean, ref = means()
    with pytest.raises(ValueError, match="one shape"):
        unequal_gaussian_kl(mean, ref[:1], 1.0, 1.0, reduce=latent_sum)
    with pytest.raises(ValueError, match=r"std must be a number, \(2,\)"):
        unequal_gaussian_kl(mean, ref, torch.ones(3), 1.0, reduce=latent_sum)
    with pytest.raises(ValueError, match="std_ref must be a number"):
        unequal_gaussian_kl(mean, ref, 1.0, torch.ones(2, 3), reduce=latent_sum)
    with pytest.raises(ValueError, match="floating"):
        unequal_gaussian_kl(mean.long(), ref.long(), 1.0, 1.0, reduce=latent_sum)


def test_straight_through_has_one_value_and_the_gradient_of_k2() -> None:
    r = torch.tensor([0.4, -1.3], dtype=torch.float64, requires_grad=True)
    out = R.straight_through(7 * r.detach(), r)
    assert torch.equal(out, 7 * r) and torch.equal(torch.autograd.grad(out.sum(), r)[0], r)
    live = torch.autograd.grad(R.straight_through(R.k3(r), r).sum(), r)[0]
    assert torch.allclose(live, r) and R.k_abs(torch.tensor([-2.0, 3.0])).tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match="value"):
        R.straight_through(r[:1], r)
