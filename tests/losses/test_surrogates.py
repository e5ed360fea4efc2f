from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import surrogates
from diffalign.losses.diffusion import latent_mean, latent_sum
from diffalign.losses.time_weights import constant_weight, data_weight, epsilon_weight

F64 = torch.float64
SHAPE = (3, 2, 4, 4)


def latents(n: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    return list(torch.randn(n, *SHAPE, dtype=F64))


def test_golden_surrogate() -> None:
    """Errors (.3, -.5) of the policy, (.1, .7) of the reference: means .17 and .25, so Delta = .04."""
    target = torch.tensor([[1.0, 2.0]], dtype=F64)
    policy, reference = target + torch.tensor([0.3, -0.5], dtype=F64), target + torch.tensor([0.1, 0.7], dtype=F64)
    assert surrogates.epsilon(policy, reference, target).item() == pytest.approx(0.04, abs=1e-12)
    assert surrogates.epsilon(policy, reference, target, reduce=latent_sum).item() == pytest.approx(0.08, abs=1e-12)
    assert surrogates.denoising_error(policy, target).item() == pytest.approx(0.17, abs=1e-12)
    assert surrogates.denoising_error(policy, target, reduce=latent_sum).item() == pytest.approx(0.34, abs=1e-12)
    t = torch.tensor([0.3], dtype=F64)
    for weight, factor in ((constant_weight, 1), (epsilon_weight, 0.49), (data_weight, 0.09)):
        delta = surrogates.velocity(policy, reference, target, t, weight=weight)
        assert delta.item() == pytest.approx(0.04 * factor, abs=1e-12)
    assert surrogates.velocity(policy, reference, target, t).item() == pytest.approx(0.04, abs=1e-12)
    assert surrogates.velocity(policy, reference, target, t, reduce=latent_sum).item() == pytest.approx(0.08, abs=1e-12)


def test_it_is_half_the_difference_of_the_errors_and_larger_where_the_policy_is_better() -> None:
    policy, reference, target = latents()
    m, m_ref = (surrogates.denoising_error(x, target) for x in (policy, reference))
    assert torch.allclose(surrogates.epsilon(policy, reference, target), (m_ref - m) / 2, atol=1e-12)
    assert (surrogates.epsilon(target, reference, target) > 0).all()
    assert (surrogates.epsilon(policy, target, target) < 0).all()


def test_at_the_reference_it_is_exactly_zero_and_the_slope_is_dpos() -> None:
    """d Delta / d m = -1/2, so with beta the gradient of the pair loss at the start is beta/4 per error."""
    policy, _, target = (x.float() for x in latents())
    policy.requires_grad_()
    delta = surrogates.epsilon(policy, policy.detach(), target)
    assert delta.tolist() == [0, 0, 0]
    (slope,) = torch.autograd.grad(delta.sum(), policy)
    (of_error,) = torch.autograd.grad(surrogates.denoising_error(policy, target).sum(), policy)
    assert torch.allclose(slope, -of_error / 2, atol=1e-8)


def test_near_the_reference_single_precision_keeps_its_digits() -> None:
    _, reference, target = (x.float() for x in latents())
    policy = reference + 1e-6
    exact = surrogates.epsilon(policy.double(), reference.double(), target.double())
    found = surrogates.epsilon(policy, reference, target).double()
    assert ((found - exact) / exact).abs().max() < 1e-5


def test_velocity_with_the_weight_of_the_noise_is_the_epsilon_surrogate() -> None:
    """x_t = (1 - t) x_0 + t eps and v = eps - x_0, so eps = x_t + (1 - t) v and x_0 = x_t - t v."""
    v, v_ref, x_0 = latents()
    noise, t = torch.randn(SHAPE, dtype=F64), torch.tensor([0.3, 0.9, 0.05], dtype=F64)
    time = t[:, None, None, None]
    x_t = (1 - time) * x_0 + time * noise
    target = noise - x_0
    by_noise = surrogates.epsilon(x_t + (1 - time) * v, x_t + (1 - time) * v_ref, noise)
    assert torch.allclose(surrogates.velocity(v, v_ref, target, t, weight=epsilon_weight), by_noise, atol=1e-12)
    by_image = surrogates.epsilon(x_t - time * v, x_t - time * v_ref, x_0)
    assert torch.allclose(surrogates.velocity(v, v_ref, target, t, weight=data_weight), by_image, atol=1e-12)


def test_a_region_counts_alone() -> None:
    policy, reference, target = latents()
    region = torch.zeros(3, 1, 4, 4)
    region[:2, :, 1:3, :] = 1
    delta = surrogates.epsilon(policy, reference, target, reduce=surrogates.region_mean(region))
    inside = surrogates.epsilon(*(x[:, :, 1:3] for x in (policy, reference, target)))
    assert torch.allclose(delta[:2], inside[:2], atol=1e-12)
    assert delta[2] == 0
    whole = surrogates.epsilon(policy, reference, target, reduce=surrogates.region_mean(torch.ones(1, 1, 1, 1)))
    assert torch.allclose(whole, surrogates.epsilon(policy, reference, target), atol=1e-12)
    pixel = torch.zeros(3, 2, 4, 4)
    pixel[0, 1, 2, 3] = 1
    one = surrogates.denoising_error(policy, target, reduce=surrogates.region_mean(pixel))[0]
    assert one.item() == pytest.approx((policy - target)[0, 1, 2, 3].item() ** 2, abs=1e-12)
    with pytest.raises(ValueError, match="no valid entry"):
        surrogates.region_mean(torch.zeros(3, 1, 4, 4))


def test_steps_are_differences_of_torchs_normal_log_probs() -> None:
    next_x, mean, mean_ref = (torch.randn(2, 3, 5, dtype=F64) for _ in range(3))
    std = torch.tensor([0.2, 0.7, 1.5], dtype=F64)
    normal = torch.distributions.Normal
    expected = normal(mean, std[:, None]).log_prob(next_x) - normal(mean_ref, std[:, None]).log_prob(next_x)
    for spread in (std, std.expand(2, 3)):
        assert torch.allclose(surrogates.gaussian_step(next_x, mean, mean_ref, spread), expected.mean(2), atol=1e-10)
    total = surrogates.gaussian_step(next_x, mean, mean_ref, std, reduce=latent_sum)
    assert torch.allclose(total, expected.sum(2), atol=1e-10)
    rows = torch.tensor([[0.2, 0.7, 1.5], [1.0, 0.3, 0.4]], dtype=F64)
    found = surrogates.gaussian_step(next_x, mean, mean_ref, rows)
    log_probs = [normal(m[:, 1], rows[:, 1, None]).log_prob(next_x[:, 1]).mean(1) for m in (mean, mean_ref)]
    assert torch.allclose(found[:, 1], log_probs[0] - log_probs[1], atol=1e-10)
    assert torch.allclose(surrogates.gaussian_step(next_x, mean, mean_ref, 0.7)[:, 1], expected.mean(2)[:, 1])


def test_a_step_without_noise_has_no_log_ratio_and_no_gradient() -> None:
    mean = torch.randn(1, 2, 3, requires_grad=True)
    value = surrogates.gaussian_step(torch.randn(1, 2, 3), mean, torch.randn(1, 2, 3), torch.tensor([0.0, 1.0]))
    value.sum().backward()
    assert value[0, 0] == 0 and mean.grad[0, 0].abs().max() == 0 and mean.grad[0, 1].abs().min() > 0


def test_masked_tokens_by_hand() -> None:
    """t = .5, two hidden tokens with log-ratios .2 and -.1: D = 2 (.1) = .2; nothing hidden: 0."""
    reference = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]], dtype=F64)
    log_prob = reference + torch.tensor([[0.2, 5.0, -0.1], [7.0, 7.0, 7.0]], dtype=F64)
    hidden, a = torch.tensor([[1, 0, 1], [0, 0, 0]]), torch.tensor([0.5, 0.25], dtype=F64)
    delta = surrogates.masked(log_prob, reference, hidden, a)
    assert delta.tolist() == pytest.approx([0.2, 0], abs=1e-12)
    plain = surrogates.masked(log_prob, reference, hidden, a, weight=constant_weight)
    assert plain.tolist() == pytest.approx([0.1, 0], abs=1e-12)


def test_tokens_that_were_not_hidden_may_be_anything() -> None:
    log_prob = torch.tensor([[-1.0, -math.inf, math.nan]], requires_grad=True)
    delta = surrogates.masked(log_prob, torch.full((1, 3), -2.0), torch.tensor([[1, 0, 0]]), torch.tensor([1.0]))
    delta.sum().backward()
    assert delta.item() == 1 and log_prob.grad.tolist() == [[1, 0, 0]]


def test_gradients_are_right_and_reach_the_policy_alone() -> None:
    p, r, y = (torch.randn(2, 3, dtype=F64, requires_grad=True) for _ in range(3))
    t = torch.tensor([0.2, 0.9], dtype=F64, requires_grad=True)
    hidden = torch.ones(2, 3)
    calls = [
        lambda x: surrogates.epsilon(x, r.detach(), y.detach()),
        lambda x: surrogates.velocity(x, r.detach(), y.detach(), t.detach(), weight=epsilon_weight),
        lambda x: surrogates.denoising_error(x, y.detach()),
        lambda x: surrogates.masked(x, r.detach(), hidden, t.detach()),
        lambda x: surrogates.gaussian_step(y.detach()[:, :, None], x[:, :, None], r.detach()[:, :, None], 0.7),
    ]
    assert all(torch.autograd.gradcheck(call, p) for call in calls)
    total = surrogates.epsilon(p, r, y) + surrogates.velocity(p, r, y, t, weight=data_weight)
    total = total + surrogates.denoising_error(p, y) + surrogates.masked(p, r, hidden, t)
    steps = surrogates.gaussian_step(y[:, :, None], p[:, :, None], r[:, :, None], t[:, None].expand(2, 3))
    (total.sum() + steps.sum()).backward()
    assert r.grad is None and y.grad is None and t.grad is None
    assert p.grad.abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_the_first_subtraction(dtype: torch.dtype) -> None:
    p, r, y = (x.to(dtype) for x in latents())
    wide = [x.float() for x in (p, r, y)]
    t = torch.tensor([0.25, 0.5, 0.75], dtype=dtype)
    assert torch.equal(surrogates.epsilon(p, r, y), surrogates.epsilon(*wide))
    assert torch.equal(
        surrogates.velocity(p, r, y, t, weight=data_weight), surrogates.velocity(*wide, t.float(), weight=data_weight)
    )
    assert torch.equal(surrogates.denoising_error(p, y), surrogates.denoising_error(wide[0], wide[2]))
    big = torch.full((1, 4), 1e4, dtype=dtype)
    assert surrogates.epsilon(big, -big, big * 0.5).isfinite().all()
    assert surrogates.epsilon(p, r, y).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    x, t = torch.zeros(2, 3), torch.tensor([0.1, 0.2])
    for call in (surrogates.epsilon, lambda *a: surrogates.velocity(*a, t)):
        with pytest.raises(ValueError, match=r"target \(3,\)"):
            call(x, x, x[0])
        with pytest.raises(ValueError, match="floating"):
            call(x.long(), x, x)
        with pytest.raises(ValueError, match="two axes"):
            call(x[0], x[0], x[0])
    with pytest.raises(ValueError, match="t must be in"):
        surrogates.velocity(x, x, x, torch.tensor([250.0, 500.0]))
    with pytest.raises(ValueError, match="shape"):
        surrogates.velocity(x, x, x, t[:1])
    with pytest.raises(ValueError, match=r"\(B, T, ...\)"):
        surrogates.gaussian_step(x, x, x, 0.1)
    with pytest.raises(ValueError, match=r"\(5,\)"):
        surrogates.gaussian_step(x[..., None], x[..., None], x[..., None], torch.ones(5))
    with pytest.raises(ValueError, match="mask_prob"):
        surrogates.masked(x, x, x, torch.tensor([1.5, 0.5]))
    with pytest.raises(ValueError, match="mask_prob"):
        surrogates.masked(x, x, x, torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"\(B, L\)"):
        surrogates.masked(x[..., None], x[..., None], x[..., None], t)
    with pytest.raises(ValueError, match="mask has shape"):
        surrogates.masked(x, x, x[:, :2], t)
    with pytest.raises(ValueError, match="floating"):
        surrogates.denoising_error(x.long(), x)
    assert latent_mean(x).shape == (2,)
