"""The fused step: the numbers of `diffalign.sampling.dynamics`, gradients in float64, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.cuda_ext import affine, sampler_step
from diffalign.cuda_ext.sampler_step import reason
from diffalign.losses.diffusion import plain_log_ratio
from diffalign.sampling import dynamics
from diffalign.sampling.policy import linear_guidance
from diffalign.sampling.schedule import Schedule
from tests.cuda_ext.cases import gap, normal

SHAPE = (3, 2, 3, 5)
T = 6


def flow() -> Schedule:
    sigma = torch.linspace(1, 0, T + 1, dtype=torch.float64)
    return Schedule(1 - sigma, sigma, 1000 * sigma[:-1], "flow")


def preserving(prediction: str) -> Schedule:
    sigma = torch.linspace(0.99, 0.03, T + 1, dtype=torch.float64)
    return Schedule((1 - sigma**2).sqrt(), sigma, 1000 * sigma[:-1], prediction)


SAMPLERS = {
    "flow_sde": lambda: dynamics.flow_sde(flow(), 0.7),
    "dance_sde": lambda: dynamics.dance_sde(flow(), 0.3),
    "cps": lambda: dynamics.cps(flow(), 0.8),
    "renoise": lambda: dynamics.renoise(flow()),
    "ode": lambda: dynamics.ode(flow()),
    "ddim_epsilon": lambda: dynamics.ddim(preserving("epsilon"), 1.0),
    "ddim_v": lambda: dynamics.ddim(preserving("v_prediction"), 0.5),
    "ddim_sample": lambda: dynamics.ddim(preserving("sample"), 0.5),
}


def coefficients(table: dynamics.Dynamics, k: Any, batch: int) -> Tensor:
    def mean(v: Tensor, x: Tensor) -> Tensor:
        return table.step(v, k, x, noise=torch.zeros_like(x)).mean

    std = table.c[k].expand(batch) if isinstance(k, int) else table.c[k]
    return torch.cat([affine(mean, batch), std[:, None]], dim=1)


def inputs(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: normal(*SHAPE, seed=i, dtype=dtype) for i, name in enumerate(("cond", "uncond", "x", "noise", "old"))}


@pytest.mark.parametrize("k", [0, 3, T - 1, torch.tensor([0, 2, 4])])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_is_that_of_the_sampler(name: str, k: Any) -> None:
    table, given = SAMPLERS[name](), inputs()
    guided = linear_guidance(given["cond"], given["uncond"], 4.5)
    expected = table.step(guided, k, given["x"], noise=given["noise"])
    rows = coefficients(table, k, len(given["x"]))
    drawn = sampler_step(given["cond"], given["x"], rows, uncond=given["uncond"], scale=4.5, noise=given["noise"])
    assert gap(drawn.next_x, expected.next_x) < 1e-12
    log_prob = torch.full((3,), torch.nan) if expected.log_prob is None else expected.log_prob
    assert gap(drawn.log_prob, log_prob) < 1e-12
    evaluated = sampler_step(guided, given["x"], rows, next_x=expected.next_x, reduce="sum")
    total = table.step(guided, k, given["x"], expected.next_x, reduce="sum").log_prob
    assert gap(evaluated.log_prob, torch.full((3,), torch.nan) if total is None else total) < 1e-12
    assert evaluated.next_x is expected.next_x and not evaluated.kl.any()


@pytest.mark.parametrize("storage", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_and_evaluated_as_stored(storage: torch.dtype) -> None:
    table = dynamics.flow_sde(flow(), 0.7)
    given = {name: value.to(storage) for name, value in inputs().items()}
    rows = coefficients(table, 2, 3)
    drawn = sampler_step(given["cond"], given["x"], rows, noise=given["noise"])
    expected = table.step(given["cond"], 2, given["x"], noise=given["noise"])
    assert drawn.next_x.dtype is storage and drawn.log_prob.dtype is torch.float32
    assert gap(drawn.next_x, expected.next_x) <= (1e-6 if storage is torch.float32 else 2 * torch.finfo(storage).eps)
    again = sampler_step(given["cond"], given["x"], rows, next_x=drawn.next_x)
    assert torch.equal(again.log_prob, drawn.log_prob), "evaluating what was drawn gives the ratio 1 exactly"
    assert gap(drawn.log_prob, table.step(given["cond"], 2, given["x"], drawn.next_x).log_prob) < 1e-6


@pytest.mark.parametrize("reparam", [False, True])
def test_gradients_are_those_of_the_sampler(reparam: bool) -> None:
    table, given = dynamics.cps(flow(), 0.7), inputs()
    rows, weight = coefficients(table, torch.tensor([0, 2, 3]), 3), normal(*SHAPE, seed=9, dtype=torch.float64)
    leaves = [given[name].clone().requires_grad_() for name in ("cond", "uncond", "x")]
    cond, uncond, x = leaves
    step = sampler_step(cond, x, rows, uncond=uncond, scale=3.0, noise=given["noise"], reparam=reparam)
    value = step.log_prob.square().sum() + ((step.next_x * weight).sum() if reparam else 0)
    found = torch.autograd.grad(value, leaves)
    guided = linear_guidance(cond, uncond, 3.0)
    out = table.step(guided, torch.tensor([0, 2, 3]), x, noise=given["noise"], reparam=reparam)
    assert out.log_prob is not None
    value = out.log_prob.square().sum() + ((out.next_x * weight).sum() if reparam else 0)
    for one, other in zip(found, torch.autograd.grad(value, leaves), strict=True):
        assert gap(one, other) < 1e-10
    assert step.next_x.requires_grad is reparam


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("draw", [True, False])
def test_every_gradient_is_right(draw: bool, reduce: str) -> None:
    given, rows = inputs(), torch.tensor([[0.7, -0.2, 0.3], [1.1, 0.4, 0.05], [0.9, 0.3, 0.0]], dtype=torch.float64)
    scale = torch.tensor([1.0, 4.5, 0.0])

    def run(cond: Tensor, uncond: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        outcome = {"noise": given["noise"], "reparam": True} if draw else {"next_x": given["noise"]}
        step = sampler_step(cond, x, rows, uncond=uncond, scale=scale, reference=given["old"], reduce=reduce, **outcome)
        dense = torch.nan_to_num(step.log_prob), step.kl
        return (step.next_x, *dense) if draw else dense

    leaves = [given[name].requires_grad_() for name in ("cond", "uncond", "x")]
    assert torch.autograd.gradcheck(run, leaves)


def test_kl_is_the_expected_log_ratio() -> None:
    """E log p/q over outcomes of p, from many draws, and its closed form at equal means."""
    rows, s = torch.tensor([[0.9, 0.4, 0.25]], dtype=torch.float64), 0.25
    v, old, x = (normal(1, 4, seed=i, dtype=torch.float64) for i in range(3))
    step = sampler_step(v, x, rows, noise=torch.zeros_like(x), reference=old)
    draws = 0.9 * x + 0.4 * v + s * normal(200_000, 4, seed=5, dtype=torch.float64)
    mean, mean_old = (0.9 * x + 0.4 * each for each in (v, old))
    ratios = plain_log_ratio(draws, mean.expand_as(draws), mean_old.expand_as(draws), s)
    assert abs(float(ratios.mean() - step.kl)) < 4 * float(ratios.std()) / math.sqrt(len(draws))
    assert float(sampler_step(v, x, rows, noise=x, reference=v).kl) == 0


def test_a_deterministic_row_has_no_density_and_no_gradient() -> None:
    given = inputs()
    cond = given["cond"].requires_grad_()
    rows = torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.5, 1e-5], [1.0, 0.5, 0.2]])
    step = sampler_step(cond, given["x"], rows, noise=given["noise"], reference=given["old"])
    assert step.log_prob.isnan().tolist() == [True, True, False] and step.kl[:2].tolist() == [0, 0] and step.kl[2] > 0
    (gradient,) = torch.autograd.grad(step.log_prob[2] + step.kl.sum(), cond)
    assert gradient.isfinite().all() and not gradient[:2].any() and gradient[2].any()


def test_one_row_does_not_reach_another_and_an_empty_batch_is_served() -> None:
    given, rows = inputs(torch.float32), torch.tensor([[0.7, -0.2, 0.3]] * 3)
    whole = sampler_step(given["cond"], given["x"], rows, noise=given["noise"])
    given["x"][0] = torch.nan
    other = sampler_step(given["cond"], given["x"], rows, noise=given["noise"])
    assert torch.equal(whole.log_prob[1:], other.log_prob[1:]) and other.log_prob[0].isnan()
    none = sampler_step(given["cond"][:0], given["x"][:0], rows[:0], noise=given["noise"][:0])
    assert none.next_x.shape == (0, *SHAPE[1:]) and none.log_prob.shape == none.kl.shape == (0,)


def test_permuted_latents_give_the_same() -> None:
    given, rows = inputs(torch.float32), torch.tensor([[0.7, -0.2, 0.3]] * 3)
    plain = sampler_step(given["cond"], given["x"], rows, noise=given["noise"])
    turned = [given[name].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for name in ("cond", "x", "noise")]
    assert not turned[0].is_contiguous()
    found = sampler_step(turned[0], turned[1], rows, noise=turned[2])
    assert torch.equal(found.next_x, plain.next_x) and torch.allclose(found.log_prob, plain.log_prob, atol=1e-6)


@pytest.mark.parametrize("draw", [True, False])
def test_the_operator_is_registered_as_torch_wants_it(draw: bool) -> None:
    given, rows = inputs(torch.float32), torch.tensor([[0.7, -0.2, 0.3, 2.0]] * 3)
    leaves = [given[name].requires_grad_() for name in ("cond", "uncond", "x")]
    operator = torch.ops.diffalign.sampler_step.default
    for arguments in (
        (*leaves, given["noise"], given["old"], rows, draw, False, draw),
        (leaves[0], None, given["x"].detach(), given["noise"], None, rows, draw, True, False),
    ):
        torch.library.opcheck(operator, arguments)


def test_it_compiles_into_one_graph() -> None:
    given, rows = inputs(torch.float32), torch.tensor([[0.7, -0.2, 0.3]] * 3)

    def loss(cond: Tensor) -> Tensor:
        return sampler_step(cond, given["x"], rows, next_x=given["noise"], reference=given["old"]).log_prob.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaf = given["cond"].requires_grad_()
    one, other = (torch.autograd.grad(function(leaf), leaf)[0] for function in (loss, compiled))
    assert torch.equal(one, other)


def test_a_second_derivative_is_refused() -> None:
    given, rows = inputs(), torch.tensor([[0.7, -0.2, 0.3]] * 3)
    cond = given["cond"].requires_grad_()
    value = sampler_step(cond, given["x"], rows, next_x=given["noise"]).log_prob.sum()
    (first,) = torch.autograd.grad(value, cond, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), cond)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": None}, "exactly one"),
        ({"next_x": normal(*SHAPE)}, "exactly one"),
        ({"x": normal(3, 2)}, "share one shape"),
        ({"reference": normal(3, 2, 3, 4)}, "share one shape"),
        ({"cond": torch.zeros(3, 0), "x": torch.zeros(3, 0), "noise": torch.zeros(3, 0)}, "at least one element"),
        ({"cond": torch.zeros(SHAPE, dtype=torch.long)}, "floating point"),
        ({"coefficients": torch.zeros(3, 2)}, r"shape \(3, 3\)"),
        ({"scale": torch.ones(2)}, r"scale .* \(3,\)"),
        ({"reduce": "max"}, "valid: mean, sum"),
        ({"uncond": torch.zeros(SHAPE, device="meta")}, "one device"),
        ({"noise": normal(*SHAPE).requires_grad_()}, "no gradient flows to noise"),
        ({"noise": None, "next_x": normal(*SHAPE), "reparam": True}, "reparam"),
    ],
)
def test_bad_input_is_refused_with_the_reason(change: dict[str, Any], message: str) -> None:
    good = {"cond": normal(*SHAPE), "x": normal(*SHAPE), "noise": normal(*SHAPE), "coefficients": torch.ones(3, 3)}
    with pytest.raises(ValueError, match=message):
        sampler_step(**{**good, **change})


def test_a_step_with_a_history_is_no_affine_step() -> None:
    table = dynamics.dpmpp2m(flow())

    def mean(v: Tensor, x: Tensor) -> Tensor:
        return table.step(v, 2, x, x0_prev=torch.full_like(x, 0.3)).mean

    with pytest.raises(ValueError, match="not linear"):
        affine(mean, 2)


def test_the_reason_is_said() -> None:
    assert "cpu" in str(reason(normal(2, 2), None))
