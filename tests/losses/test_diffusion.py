from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import diffusion as D

F64 = torch.float64
RATIOS = [D.plain_log_ratio, D.cps_log_ratio, D.guard_log_ratio]
SHAPE = (3, 2, 4, 4)
STD = torch.tensor([0.2, 0.7, 0.05], dtype=F64)


def step(shift: float = 0.01) -> tuple[Tensor, Tensor, Tensor]:
    """(next_x, mean, mean_old) with next_x drawn from the old policy."""
    torch.manual_seed(0)
    old = torch.randn(SHAPE, dtype=F64)
    next_x = old + STD[:, None, None, None] * torch.randn(SHAPE, dtype=F64)
    return next_x, old + shift * torch.randn(SHAPE, dtype=F64), old


def log_prob(next_x: Tensor, mean: Tensor, reduce=D.latent_mean) -> Tensor:
    return reduce(torch.distributions.Normal(mean, STD[:, None, None, None]).log_prob(next_x))


def test_golden_log_ratios() -> None:
    """c = .2, old mean 0, new mean .01, noise z = 1, one element."""
    next_x, mean, old = (torch.tensor([[x]], dtype=F64) for x in (0.2, 0.01, 0.0))
    assert [f(next_x, mean, old, 0.2).item() for f in RATIOS] == pytest.approx([0.04875, 0.0039, 0.01], abs=1e-12)


def test_plain_log_ratio_is_the_difference_of_log_probs() -> None:
    next_x, mean, old = step(0.1)
    for reduce in (D.latent_mean, D.latent_sum):
        pair = [log_prob(next_x, m, reduce) for m in (mean, old)]
        expected = D.log_prob_difference(*pair)
        assert torch.allclose(D.plain_log_ratio(next_x, mean, old, STD, reduce=reduce), expected, atol=1e-9)
        assert torch.allclose(expected, pair[0] - pair[1], atol=0)


def test_cps_and_guard_are_the_plain_one_rescaled() -> None:
    next_x, mean, old = step(0.1)
    plain = D.plain_log_ratio(next_x, mean, old, STD)
    assert torch.allclose(D.cps_log_ratio(next_x, mean, old, STD), 2 * STD**2 * plain, atol=1e-12)
    assert torch.allclose(D.cps_scaled(plain, STD), 2 * STD**2 * plain, atol=1e-14)
    # CPS's own definition of the log-prob
    own = [-((next_x - m) ** 2).flatten(1).mean(1) for m in (mean, old)]
    assert torch.allclose(D.cps_log_ratio(next_x, mean, old, STD), own[0] - own[1], atol=1e-12)
    shift = ((mean - old) ** 2).flatten(1).mean(1)
    assert torch.allclose(D.guard_log_ratio(next_x, mean, old, STD), STD * plain + shift / (2 * STD), atol=1e-12)
    noise = (next_x - old) / STD[:, None, None, None]
    assert torch.allclose(
        D.guard_log_ratio(next_x, mean, old, STD), (noise * (mean - old)).flatten(1).mean(1), atol=1e-12
    )


@pytest.mark.parametrize("form", RATIOS)
def test_sum_is_the_number_of_elements_times_mean(form) -> None:
    x = step()
    total = form(*x, STD, reduce=D.latent_sum)
    assert torch.allclose(total, 32 * form(*x, STD), atol=1e-9)
    assert D.latent_sum(torch.full((1, 4, 128, 128), 1e-4, dtype=F64)).item() == pytest.approx(6.5536)
    assert D.latent_mean(torch.full((1, 4, 128, 128), 1e-4, dtype=F64)).item() == pytest.approx(1e-4)


@pytest.mark.parametrize("form", RATIOS)
def test_equal_means_give_a_ratio_of_exactly_one(form) -> None:
    next_x, mean, _ = (x.float() for x in step())
    assert (form(next_x, mean, mean, STD.float()) == 0).all()


def monte_carlo(form, *, rho: float, c: float, dims: int) -> Tensor:
    """Log-ratios at roll-out noise for a shift of ``rho`` standard deviations in every element."""
    noise = torch.randn(20_000, dims, generator=torch.Generator().manual_seed(0), dtype=F64)
    old = torch.zeros_like(noise)
    return form(c * noise, old + rho * c, old, c)


def test_the_plain_ratio_drifts_below_one() -> None:
    x = monte_carlo(D.plain_log_ratio, rho=0.1697, c=0.3, dims=64)
    assert x.mean().item() == pytest.approx(-0.0144, abs=4.5e-4)  # three standard errors of the mean
    assert x.std().item() == pytest.approx(0.1697 / 8, rel=0.03)


def test_the_guard_ratio_does_not() -> None:
    x = monte_carlo(D.guard_log_ratio, rho=0.1697, c=0.3, dims=64)
    sd = 0.3 * 0.1697 / 8
    assert abs(x.mean().item()) < 3 * sd / 20_000**0.5
    assert x.std().item() == pytest.approx(sd, rel=0.03)


def test_the_path_ratio_is_one_at_the_old_policy_and_pulls_the_end_to_the_action() -> None:
    action, _, end = step()
    value = torch.randn(SHAPE, dtype=F64).requires_grad_()
    out = D.path_log_ratio(action, end, value, value.detach(), STD, reduce=D.latent_sum)
    (grad,) = torch.autograd.grad(out.sum(), value)
    assert (out == 0).all()
    assert torch.allclose(grad * STD[:, None, None, None] ** 2, action - end, atol=1e-12)


def test_the_path_ratio_sees_a_changed_noise_level() -> None:
    """By hand: a - y = .3, d = .1, from c = .2 to c = .5."""
    x = [torch.tensor([[v]], dtype=F64) for v in (0.7, 0.4, 1.1, 1.0)]
    assert D.path_log_ratio(*x, 0.5, 0.2).item() == pytest.approx(-0.04 / 0.5 + 0.09 / 0.08 - math.log(2.5))
    assert D.path_log_ratio(*x, 0.2).item() == pytest.approx((0.09 - 0.04) / 0.08)
    assert D.path_log_ratio(*x, 0.2, 0.2).item() == pytest.approx((0.09 - 0.04) / 0.08)


def test_exact_kl_is_torchs_and_symmetric() -> None:
    _, mean, ref = step(0.3)
    normal = [torch.distributions.Normal(m, STD[:, None, None, None]) for m in (mean, ref)]
    expected = torch.distributions.kl_divergence(*normal).sum((1, 2, 3))
    assert torch.allclose(D.gaussian_kl(mean, ref, STD, reduce=D.latent_sum), expected, atol=1e-10)
    assert torch.equal(
        D.gaussian_kl(ref, mean, STD, reduce=D.latent_sum), D.gaussian_kl(mean, ref, STD, reduce=D.latent_sum)
    )


def test_exact_kl_is_minus_the_expected_log_ratio() -> None:
    x = monte_carlo(D.plain_log_ratio, rho=0.5, c=0.3, dims=4).mean().item()
    kl = D.gaussian_kl(torch.full((1, 4), 0.15, dtype=F64), torch.zeros(1, 4, dtype=F64), 0.3, reduce=D.latent_mean)
    assert -x == pytest.approx(kl.item(), abs=3 * 0.25 / 20_000**0.5)


def flow_sde(v: Tensor, x: Tensor, sigma: float, dt: float, a: float) -> tuple[Tensor, float]:
    """Mean and s of one Flow-SDE step, written out: Euler-Maruyama with s = a sqrt(sigma / (1 - sigma))."""
    s = a * math.sqrt(sigma / (1 - sigma))
    eps = x + (1 - sigma) * v
    return x + (v + s**2 * eps / (2 * sigma)) * dt, s


@pytest.mark.parametrize("sigma", [0.8, 0.5])
def test_three_forms_of_the_step_kl(sigma: float) -> None:
    torch.manual_seed(1)
    x, v, v_ref = torch.randn(3, 2, 5, dtype=F64)
    dt, a = -0.2, 0.7
    (mean, s), (ref, _) = flow_sde(v, x, sigma, dt, a), flow_sde(v_ref, x, sigma, dt, a)
    std = s * math.sqrt(-dt)
    exact = D.gaussian_kl(mean, ref, std, reduce=D.latent_mean)
    assert torch.allclose(D.dt_scaled_kl(mean, ref, std, dt, reduce=D.latent_mean), -dt * exact, atol=1e-12)
    assert torch.allclose(
        D.dt_scaled_kl(mean, ref, std, dt, reduce=D.latent_mean), D.gaussian_kl(mean, ref, s, reduce=D.latent_mean)
    )
    factor = -dt * (1 + a**2 / 2) ** 2 / (2 * s**2)
    assert torch.allclose(exact, factor * D.velocity_kl(v, v_ref, reduce=D.latent_mean), atol=1e-12)


def test_dt_may_differ_per_sample() -> None:
    _, mean, ref = step(0.3)
    dt = torch.tensor([-0.1, 0.2, -0.3], dtype=F64)
    out = D.dt_scaled_kl(mean, ref, STD, dt, reduce=D.latent_mean)
    each = [
        D.dt_scaled_kl(mean[i : i + 1], ref[i : i + 1], STD[i].item(), dt[i].item(), reduce=D.latent_mean)
        for i in range(3)
    ]
    assert torch.allclose(out, torch.cat(each), atol=1e-12)


CALLS = {
    "plain": D.plain_log_ratio,
    "cps": D.cps_log_ratio,
    "guard": D.guard_log_ratio,
    "path": (lambda n, m, o, s: D.path_log_ratio(n, o, m, o, s)),
    "gaussian_kl": (lambda n, m, o, s: D.gaussian_kl(m, o, s, reduce=D.latent_mean)),
    "dt_scaled_kl": (lambda n, m, o, s: D.dt_scaled_kl(m, o, s, s, reduce=D.latent_mean)),
    "velocity_kl": (lambda n, m, o, s: D.velocity_kl(m, o, reduce=D.latent_mean)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_only_the_new_prediction_carries_a_gradient(call) -> None:
    next_x, mean, old = (x.requires_grad_() for x in step())
    std = STD.clone().requires_grad_()
    out = call(next_x, mean, old, std)
    grads = torch.autograd.grad(out.sum(), (mean, next_x, old, std), allow_unused=True)
    assert out.shape == (3,) and grads[0].abs().sum() > 0 and grads[1:] == (None, None, None)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_gradient_matches_finite_differences(call) -> None:
    next_x, mean, old = step()
    assert torch.autograd.gradcheck(lambda m: call(next_x, m, old, STD), mean.requires_grad_())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_half_precision_is_widened_before_the_first_subtraction(call) -> None:
    x = [t.bfloat16() for t in step()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(*x, STD)
    assert out.dtype == torch.float32
    assert torch.allclose(out.double(), call(*(t.double() for t in x), STD), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_far_means_are_finite(call) -> None:
    next_x, mean, old = (x.float() for x in step())
    mean = (mean + 1e4).requires_grad_()
    out = call(next_x, mean, old, STD)
    assert torch.isfinite(out).all() and torch.isfinite(torch.autograd.grad(out.sum(), mean)[0]).all()


@pytest.mark.parametrize("call", list(CALLS.values())[:6], ids=list(CALLS)[:6])
def test_std_is_a_number_or_one_per_sample(call) -> None:
    x = step()
    assert torch.allclose(call(*x, 0.3), call(*x, torch.full((3,), 0.3, dtype=F64)), atol=1e-12)
    if call is not D.cps_log_ratio:  # the only form without the variance
        assert not torch.allclose(call(*x, 0.3), call(*x, 0.4))


@pytest.mark.parametrize("name", CALLS)
def test_a_deterministic_step_pulls_at_nothing(name: str) -> None:
    next_x, mean, old = step()
    std = torch.tensor([0.2, 0.0, 0.05], dtype=F64)
    mean.requires_grad_()
    out = CALLS[name](next_x, mean, old, std)
    (grad,) = torch.autograd.grad(torch.where(std > 0, out, 0).sum(), mean)
    assert torch.isfinite(grad).all() and (grad[1] == 0).all() and (grad[[0, 2]] != 0).any()
    if name != "velocity_kl":
        assert out[1] == 0


def test_errors() -> None:
    next_x, mean, old = step()
    with pytest.raises(ValueError, match=r"std must be a number or have shape \(3,\)"):
        D.plain_log_ratio(next_x, mean, old, STD[:2])
    with pytest.raises(ValueError, match="share one shape"):
        D.plain_log_ratio(next_x, mean[:2], old, STD)
    with pytest.raises(ValueError, match="two axes"):
        D.velocity_kl(torch.zeros(3), torch.zeros(3), reduce=D.latent_mean)
    with pytest.raises(ValueError, match="share one shape"):
        D.log_prob_difference(torch.zeros(3), torch.zeros(3, 1))


def test_kl_asks_for_its_reduction() -> None:
    for kl in (D.gaussian_kl, D.dt_scaled_kl, D.velocity_kl):
        assert inspect.signature(kl).parameters["reduce"].default is inspect.Parameter.empty


def test_stored_log_probs_carry_the_gradient_on_the_new_side_only() -> None:
    new, old = (torch.zeros(2, 3, requires_grad=True) for _ in range(2))
    grads = torch.autograd.grad(D.log_prob_difference(new, old).sum(), (new, old), allow_unused=True)
    assert (grads[0] == 1).all() and grads[1] is None
