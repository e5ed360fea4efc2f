"""Tables and the step: golden numbers, laws, closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from diffalign.sampling import (
    cps,
    dance_sde,
    ddim,
    dpmpp2m,
    flow_schedule,
    flow_sde,
    from_scheduler,
    memoryless,
    ode,
    renoise,
    vp_schedule,
    where,
    window,
)
from diffalign.sampling.prediction import PREDICTIONS

S4 = [1, 0.75, 0.5, 0.25, 0]
TWO = flow_schedule([1, 0.8, 0.6, 0.3, 0])  # step 1 goes .8 -> .6
ALL = [ode, ddim, flow_sde, dance_sde, memoryless, cps, renoise, dpmpp2m]


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


GOLDEN = [  # kappa, c, mean, next, log N for x = 1, v = .5, sigma .8 -> .6, noise 1
    (lambda s: ode(s), 0.6, 0, 0.9, 0.9, None),
    (lambda s: flow_sde(s, 0.7), 0.355, 0.6260990337, 0.6305, 1.2565990337, -0.9506918136),
    (lambda s: dance_sde(s, 0.3), 0.58875, 0.1341640786, 0.887625, 1.0217890786, 0.5897532273),
    (lambda s: memoryless(s), -0.4, 1.2649110641, -0.2, 1.0649110641, -1.6539403478),
    (lambda s: cps(s, 0.8), 0.1854101966, 0.5706339098, 0.4439512163, 1.0145851261, -0.8579311195),
    (lambda s: cps(s, 0.7), 0.2723942998, 0.5346039145, 0.5396337298, 1.0742376443, -0.7927093802),
    (lambda s: ddim(s, 1.0), 0.225, 0.5562148865, 0.4875, 1.0437148865, -0.8323379605),
    (lambda s: renoise(s), 0, 0.6, 0.24, 0.84, -0.9081129094),
]


@pytest.mark.parametrize(("build", "kappa", "c", "mean", "following", "log_n"), GOLDEN)
def test_golden_scalars(build, kappa, c, mean, following, log_n):
    table = build(TWO)
    out = table.step(scalar(0.5), 1, scalar(1.0), noise=scalar(1.0))
    assert float(table.kappa[1]) == pytest.approx(kappa, abs=1e-9)
    assert float(table.c[1]) == pytest.approx(c, abs=1e-9)
    assert float(out.mean) == pytest.approx(mean, abs=1e-9)
    assert float(out.next_x) == pytest.approx(following, abs=1e-9)
    assert out.log_prob is None if log_n is None else float(out.log_prob) == pytest.approx(log_n, abs=1e-9)


def test_golden_scalars_in_single_precision():
    for build, _, _, mean, following, log_n in GOLDEN:
        out = build(TWO).step(scalar(0.5).float(), 1, scalar(1.0).float(), noise=scalar(1.0).float())
        assert out.mean.dtype == torch.float32
        assert float(out.mean) == pytest.approx(mean, abs=1e-6)
        assert float(out.next_x) == pytest.approx(following, abs=1e-6)
        assert log_n is None or float(out.log_prob) == pytest.approx(log_n, abs=1e-6)


def test_golden_variance_preserving_step():
    schedule = vp_schedule([0.4, 0.6], [500], "epsilon")
    out = ddim(schedule, 1.0).step(scalar(0.5), 0, scalar(1.0), noise=scalar(1.0))
    assert float(out.x0_hat) == pytest.approx(0.9687663944, abs=1e-9)
    assert float(ddim(schedule).kappa) == pytest.approx(0.4216370214, abs=1e-9)
    assert float(ddim(schedule).c) == pytest.approx(0.4714045208, abs=1e-9)
    assert float(out.mean) == pytest.approx(0.9612217330, abs=1e-9)
    assert float(out.next_x) == pytest.approx(1.4326262539, abs=1e-9)


def test_flow_and_dance_are_one_formula():
    schedule = flow_schedule(S4)
    for k in range(1, 4):
        s = 0.7 * math.sqrt(float(schedule.sigma[k] / (1 - schedule.sigma[k])))
        assert float(dance_sde(schedule, s).kappa[k]) == pytest.approx(
            float(flow_sde(schedule, 0.7).kappa[k]), abs=1e-14
        )
        assert float(dance_sde(schedule, s).c[k]) == pytest.approx(float(flow_sde(schedule, 0.7).c[k]), abs=1e-14)


@pytest.mark.parametrize(
    "build", [lambda s: flow_sde(s, 0), lambda s: dance_sde(s, 0), lambda s: ddim(s, 0), lambda s: cps(s, 0)]
)
def test_without_noise_every_family_is_the_euler_step(build):
    schedule = flow_schedule(S4)
    x, v = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    for k in range(4):
        out = build(schedule).step(v, k, x)
        expected = x + v * (schedule.sigma[k + 1] - schedule.sigma[k])
        torch.testing.assert_close(out.next_x, expected, rtol=0, atol=1e-12)


def test_memoryless_is_flow_sde_of_root_two_and_has_its_published_drift():
    schedule = flow_schedule(S4)
    table = memoryless(schedule)
    assert torch.equal(table.kappa, flow_sde(schedule, math.sqrt(2)).kappa)
    x, v = torch.randn(1, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    for k in range(1, 4):
        sigma, dt = schedule.sigma[k], schedule.sigma[k + 1] - schedule.sigma[k]
        drift = 2 * v + x / (1 - sigma)  # Adjoint Matching's form of v + eps_hat / (1 - sigma)
        torch.testing.assert_close(table.step(v, k, x, noise=torch.zeros_like(x)).mean, x + drift * dt)


def test_noise_level_after_a_step():
    schedule = flow_schedule(S4)
    sigma, after, dt = schedule.sigma[:-1], schedule.sigma[1:], -schedule.sigma.diff()
    for table in (ode(schedule), ddim(schedule, 0.6), cps(schedule, 0.7), renoise(schedule)):
        torch.testing.assert_close(table.noise_level, after)
        assert bool(table.consistent.all())
    s = torch.full_like(sigma, 0.3)
    excess = s**2 * dt**2 / sigma + s**4 * dt**2 / (4 * sigma**2)
    torch.testing.assert_close(dance_sde(schedule, 0.3).noise_level ** 2, after**2 + excess)
    assert not bool(dance_sde(schedule, 0.3).consistent.any())


@pytest.mark.parametrize(
    "schedule", [vp_schedule([0.2, 0.5, 0.9], [800, 400], "epsilon"), flow_schedule([0.9, 0.6, 0.2])]
)
def test_ddim_one_is_the_exact_gaussian_posterior(schedule):
    """q(x' | x, x0) of the chain x' -> x = (a/a') x' + noise, from conditioning a joint Gaussian."""
    table = ddim(schedule, 1.0)
    for k in range(schedule.num_steps):
        a, s, a1, s1 = schedule.alpha[k], schedule.sigma[k], schedule.alpha[k + 1], schedule.sigma[k + 1]
        cov = torch.stack([torch.stack([s1**2, a / a1 * s1**2]), torch.stack([a / a1 * s1**2, s**2])])
        gain = cov[0, 1] / cov[1, 1]
        assert float(table.c[k] ** 2) == pytest.approx(float(cov[0, 0] - gain * cov[1, 0]), abs=1e-12)
        x0, x = torch.tensor(0.3, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64)
        posterior = a1 * x0 + gain * (x - a * x0)
        mean = a1 * x0 + table.kappa[k] * (x - a * x0) / s
        assert float(mean) == pytest.approx(float(posterior), abs=1e-12)


def test_ddim_tends_to_the_memoryless_noise():
    table = ddim(flow_schedule([0.7, 0.7 - 1e-6]), 1.0)
    assert float(table.c[0]) / math.sqrt(1e-6) == pytest.approx(2.160247, abs=1e-5)


def propagate(table, oracle_slope) -> list[float]:
    """Variance after each step of a linear oracle: x_hat coefficients are exact, so variances follow by hand."""
    schedule, variance, out = table.schedule, 1.0, []
    for k in range(schedule.num_steps):
        one = torch.ones(1, 1, dtype=torch.float64)
        gain = float(table.step(oracle_slope(k) * one, k, one, noise=torch.zeros(1, 1)).mean)
        variance = gain**2 * variance + float(table.c[k]) ** 2
        out.append(variance)
    return out


P8 = [
    (lambda s: ddim(s, 1.0), [0.5625, 0.25, 0.0625, 0]),
    (lambda s: ddim(s, 0.4), [0.5625, 0.25, 0.0625, 0]),
    (lambda s: cps(s, 0.8), [0.5625, 0.25, 0.0625, 0]),
    (lambda s: ode(s), [0.5625, 0.25, 0.0625, 0]),
    (lambda s: flow_sde(s, 0.7), [0.745025, 0.453625, 0.151997, 0.057053]),
    (lambda s: dance_sde(s, 0.3), [0.568252, 0.260130, 0.076353, 0.024974]),
]


@pytest.mark.parametrize(("build", "variances"), P8)
def test_variance_with_one_data_point(build, variances):
    schedule = flow_schedule(S4)  # v = (x - x*) / sigma with x* = 0
    assert propagate(build(schedule), lambda k: 1 / float(schedule.sigma[k])) == pytest.approx(variances, abs=1e-6)


P9 = [
    (lambda s: flow_sde(s, 0.7), [0.505, 0.255, 0.1275, -0.081667], [0.7, 0.606218, 0.35, 0.202073]),
    (lambda s: dance_sde(s, 0.3), [0.73875, 0.485, 0.2275, -0.045], [0.15] * 4),
    (lambda s: ddim(s, 1.0), [0, 0.166667, 0.083333, 0], [0.75, 0.471405, 0.235702, 0]),
    (lambda s: cps(s, 0.8), [0.231763, 0.154508, 0.077254, 0], [0.713292, 0.475528, 0.237764, 0]),
]


@pytest.mark.parametrize(("build", "kappa", "c"), P9)
def test_tables_on_four_steps(build, kappa, c):
    table = build(flow_schedule(S4))
    assert table.kappa.tolist() == pytest.approx(kappa, abs=1e-6)
    assert table.c.tolist() == pytest.approx(c, abs=1e-6)


P10 = [
    (lambda s: flow_sde(s, 0.7), 0.793514, 1.00572),
    (lambda s: dance_sde(s, 0.3), 0.547870, 0.99761),
    (lambda s: cps(s, 0.8), 0.386586, 0.65056),
    (lambda s: ddim(s, 1.0), 0.392222, 0.99490),
    (lambda s: ode(s), 0.518400, 0.99743),
]


@pytest.mark.parametrize(("build", "four", "thousand"), P10)
def test_variance_with_gaussian_data(build, four, thousand):
    for sigmas, expected in ((S4, four), (torch.linspace(1, 0, 1001, dtype=torch.float64), thousand)):
        schedule = flow_schedule(sigmas)
        a, s = schedule.alpha, schedule.sigma
        slope = ((s - a) / (a**2 + s**2)).tolist()
        assert propagate(build(schedule), slope.__getitem__)[-1] == pytest.approx(expected, abs=1e-5)


def test_four_predictions_agree():
    x0, eps = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    alpha, sigma = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    x = alpha * x0 + sigma * eps
    outputs = {"flow": eps - x0, "epsilon": eps, "v_prediction": alpha * eps - sigma * x0, "sample": x0}
    assert set(outputs) == set(PREDICTIONS)
    for name, output in outputs.items():
        clean, noise = PREDICTIONS[name](output, x, alpha, sigma)
        torch.testing.assert_close(clean, x0)
        torch.testing.assert_close(noise, eps)


def test_dpmpp2m_without_or_with_constant_history_is_the_ode():
    schedule = flow_schedule(S4)
    x, v = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    for k in range(4):
        euler = ode(schedule).step(v, k, x)
        torch.testing.assert_close(dpmpp2m(schedule).step(v, k, x).mean, euler.mean)
        torch.testing.assert_close(dpmpp2m(schedule).step(v, k, x, x0_prev=euler.x0_hat).mean, euler.mean)


def test_dpmpp2m_is_second_order():
    """On Gaussian data the exact ODE map is known; halving the step must quarter the error."""
    errors = []
    for n in (20, 40, 80):
        schedule = flow_schedule(torch.linspace(0.9, 0.2, n + 1, dtype=torch.float64))
        table, x, previous = dpmpp2m(schedule), torch.ones(1, 1, dtype=torch.float64), None
        for k in range(n):
            a, s = schedule.alpha[k], schedule.sigma[k]
            out = table.step((s - a) / (a**2 + s**2) * x, k, x, x0_prev=previous)
            x, previous = out.next_x, out.x0_hat
        exact = math.sqrt((0.8**2 + 0.2**2) / (0.1**2 + 0.9**2))
        errors.append(abs(float(x) - exact))
    assert 3.3 < errors[0] / errors[1] < 4.7 and 3.3 < errors[1] / errors[2] < 4.7


@pytest.mark.parametrize("first", [0.99, 0.9, 0.5])
def test_flow_sde_starts_with_noise_a(first):
    assert float(flow_sde(flow_schedule([1, first, 0.1, 0]), 0.7).c[0]) == pytest.approx(0.7, abs=1e-12)


def test_sigmas_of_stable_diffusion_3():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    expected = [1, 0.960129, 0.913349, 0.857692, 0.790368, 0.707278, 0.602151, 0.464876, 0.278049, 0.008929, 0]
    assert from_scheduler(scheduler).sigma.tolist() == pytest.approx(expected, abs=1e-6)


def test_renoise_does_not_look_at_the_predicted_noise():
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 3, dtype=torch.float64)
    table = renoise(flow_schedule(S4))
    # x0_hat = x - sigma v is held fixed while eps_hat = x + alpha v moves
    for shift in (0.0, 1.0):
        moved = v + shift
        out = table.step(moved, 1, x + 0.75 * shift, noise=torch.zeros_like(x))
        torch.testing.assert_close(out.mean, table.step(v, 1, x, noise=torch.zeros_like(x)).mean)


def test_sensitivity_of_the_mean_to_the_velocity():
    v = scalar(0.5).requires_grad_()
    (grad,) = torch.autograd.grad(flow_sde(TWO, 0.7).step(v, 1, scalar(1.0), noise=scalar(0.0)).mean.sum(), v)
    assert float(grad) == pytest.approx(-0.2 * 1.245, abs=1e-12)


def test_sum_is_elements_times_mean():
    x, v, z = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    table = flow_sde(TWO, 0.7)
    mean = table.step(v, 1, x, noise=z).log_prob
    total = table.step(v, 1, x, noise=z, reduce="sum").log_prob
    torch.testing.assert_close(total, 32 * mean)


def test_step_index_may_differ_per_sample():
    x, v, z = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 5)
    for build in ALL:
        table = build(flow_schedule(S4))
        batched = table.step(v, torch.tensor([2, 0, 3]), x, noise=z)
        for row, k in enumerate((2, 0, 3)):
            one = table.step(v[row : row + 1], k, x[row : row + 1], noise=z[row : row + 1])
            assert torch.equal(batched.next_x[row : row + 1], one.next_x), table.name
            if one.log_prob is not None:
                assert torch.equal(batched.log_prob[row : row + 1], one.log_prob)
            else:
                assert batched.log_prob is None or bool(batched.log_prob[row].isnan())


def test_reparameterised_step_is_pathwise():
    v = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    x, z = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    table = flow_sde(TWO, 0.7)
    out = table.step(v, 1, x, noise=z, reparam=True)
    (through_next,) = torch.autograd.grad(out.next_x.sum(), v, retain_graph=True)
    (through_mean,) = torch.autograd.grad(out.mean.sum(), v, retain_graph=True)
    torch.testing.assert_close(through_next, through_mean)
    (through_density,) = torch.autograd.grad(out.log_prob.sum(), v, allow_unused=True)
    torch.testing.assert_close(through_density, torch.zeros_like(v))
    assert not table.step(v, 1, x, noise=z).next_x.requires_grad


def test_score_function_gradient_of_a_plain_step():
    v = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    x, z = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    out = flow_sde(TWO, 0.7).step(v, 1, x, noise=z)
    (grad,) = torch.autograd.grad(out.log_prob.sum(), v)
    slope = -0.2 * 1.245 / 0.6260990337 / 3  # d mean / d v, over c, mean over three elements
    torch.testing.assert_close(grad, slope * z, rtol=1e-8, atol=0)


def test_half_precision_states_are_rounded_before_their_density():
    x = torch.randn(2, 8).bfloat16()
    out = dance_sde(TWO, 0.3).step(torch.randn(2, 8).bfloat16(), 1, x, noise=torch.randn(2, 8))
    assert out.next_x.dtype == torch.bfloat16 and out.log_prob.dtype == torch.float32
    again = dance_sde(TWO, 0.3).step((out.x0_hat * 0).bfloat16(), 1, x, next_x=out.next_x)
    assert torch.equal(again.next_x, out.next_x)
    density = torch.distributions.Normal(out.mean, out.std[:, None]).log_prob(out.next_x.float()).mean(1)
    torch.testing.assert_close(out.log_prob, density)


def test_step_arithmetic_ignores_autocast():
    x, v, z = torch.randn(2, 8), torch.randn(2, 8), torch.randn(2, 8)
    plain = flow_sde(TWO, 0.7).step(v, 1, x, noise=z)
    with torch.autocast("cpu", torch.bfloat16):
        cast = flow_sde(TWO, 0.7).step(v, 1, x, noise=z)
    assert torch.equal(plain.mean, cast.mean) and torch.equal(plain.log_prob, cast.log_prob)


def test_where_mixes_rows_and_its_rows_keep_their_flags():
    schedule = flow_schedule(S4)
    table = where(window(4, 1, 2), flow_sde(schedule, 0.7), ode(schedule))
    assert table.stochastic.tolist() == [False, True, True, False]
    assert torch.equal(table.kappa[1:3], flow_sde(schedule, 0.7).kappa[1:3])
    assert torch.equal(table.kappa[[0, 3]], ode(schedule).kappa[[0, 3]])


def test_refusals():
    vp = vp_schedule([0.2, 0.6], [500], "epsilon")
    for family in (flow_sde, dance_sde, memoryless):
        with pytest.raises(ValueError, match=r"use ddim\(eta\)"):
            family(vp)
    flow = flow_schedule(S4)
    with pytest.raises(ValueError, match="outside"):
        ddim(flow, 1.5)
    with pytest.raises(ValueError, match="outside"):
        flow_sde(flow, -0.1)
    with pytest.raises(ValueError, match="3 entries"):
        where([True] * 3, flow_sde(flow), ode(flow))
    with pytest.raises(ValueError, match="different schedules"):
        where([True] * 4, flow_sde(flow), ode(flow_schedule([1, 0.7, 0.5, 0.25, 0])))
    with pytest.raises(ValueError, match=r"valid 0\.\.3"):
        ode(flow).step(torch.zeros(1, 1), 4, torch.zeros(1, 1))
    with pytest.raises(ValueError, match="give noise"):
        flow_sde(flow).step(torch.zeros(1, 1), 1, torch.zeros(1, 1))
