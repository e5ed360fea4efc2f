"""One optimiser step: clipping, skipping, the schedule, the way to disk and back."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from diffalign.config import RunConfig
from diffalign.trainers.run.optimisation import Optimisation


def build(total=10, **keys):
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((2, 2), 2.0))]
    keys = {"learning_rate": 0.1, "adam_weight_decay": 0.0, **keys}
    return parameters, Optimisation(parameters, RunConfig(**keys), total, Accelerator(cpu=True))


def push(parameters, optimisation, scale=1.0):
    optimisation.backward(scale * (parameters[0].sum() + (parameters[1] ** 2).sum()))


def test_terms_add_up_until_a_step_and_not_beyond():
    parameters, optimisation = build()
    push(parameters, optimisation)
    push(parameters, optimisation, 2.0)
    result = optimisation.step()
    assert result.grad_norm == pytest.approx(3 * math.sqrt(3 + 4 * 16)) and result.broken == ()
    assert all(parameter.grad is None for parameter in parameters)
    push(parameters, optimisation, 0.0)
    assert optimisation.step().grad_norm == 0


def test_the_first_step_of_adam_has_the_length_of_the_learning_rate():
    parameters, optimisation = build()
    push(parameters, optimisation)
    optimisation.step()
    assert torch.allclose(parameters[0], torch.full((3,), 0.9))
    assert torch.allclose(parameters[1], torch.full((2, 2), 1.9))


def test_a_large_gradient_is_clipped_to_its_norm():
    moments = []
    for limit in (1.0, 1e9):
        parameters, optimisation = build(max_grad_norm=limit)
        push(parameters, optimisation, 100.0)
        assert optimisation.step().grad_norm == pytest.approx(100 * math.sqrt(67))  # the norm before clipping
        moments.append(torch.cat([optimisation.optimizer.state[p]["exp_avg"].flatten() for p in parameters]) / 0.1)
    assert float(moments[0].norm()) == pytest.approx(1.0, rel=1e-4)
    assert float(moments[1].norm()) == pytest.approx(100 * math.sqrt(67), rel=1e-4)


@pytest.mark.parametrize(("value", "broken"), [(math.nan, (1,)), (math.inf, (1,)), (-math.inf, (1,)), (3e38, (0, 1))])
def test_a_step_that_is_not_finite_is_not_made(value, broken):
    parameters, optimisation = build(lr_scheduler="linear")
    push(parameters, optimisation)
    optimisation.step()
    before = [p.detach().clone() for p in parameters], optimisation.learning_rate
    moments = [optimisation.optimizer.state[p]["exp_avg"].clone() for p in parameters]
    push(parameters, optimisation)
    parameters[1].grad.fill_(value)  # four entries of 3e38 are finite, their norm is not
    result = optimisation.step()
    assert result.broken == broken and not math.isfinite(result.grad_norm)
    assert all(torch.equal(p, q) for p, q in zip(parameters, before[0], strict=True))
    assert optimisation.learning_rate == before[1]
    states = [optimisation.optimizer.state[p]["exp_avg"] for p in parameters]
    assert all(torch.equal(a, b) for a, b in zip(states, moments, strict=True))
    push(parameters, optimisation)
    after = optimisation.step()
    assert after.broken == () and after.made and not result.made


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_skips_the_step_though_its_gradient_is_finite(value):
    parameters, optimisation = build()
    push(parameters, optimisation)
    optimisation.backward(parameters[0].sum() + value)
    result = optimisation.step()
    assert (result.bad_losses, result.broken, result.made) == (1, (), False) and math.isfinite(result.grad_norm)
    assert torch.equal(parameters[0], torch.ones(3)) and len(optimisation.optimizer.state) == 0
    push(parameters, optimisation)
    assert optimisation.step().made, "the count starts again"


def test_nothing_to_learn_from_is_no_step():
    parameters, optimisation = build(lr_scheduler="linear", adam_weight_decay=0.1)
    push(parameters, optimisation)
    optimisation.step()
    before = [p.detach().clone() for p in parameters], optimisation.learning_rate
    push(parameters, optimisation)
    assert not optimisation.skip_step().made and parameters[0].grad is None
    assert all(torch.equal(p, q) for p, q in zip(parameters, before[0], strict=True))
    assert optimisation.learning_rate == before[1]


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [0.1, 0.1, 0.1, 0.1]),
        ("constant_with_warmup", [0.0, 0.05, 0.1, 0.1]),
        ("linear", [0.0, 0.05, 0.1, 0.05]),
    ],
)
def test_the_learning_rate_follows_its_schedule(name, rates):
    parameters, optimisation = build(4, lr_scheduler=name, lr_warmup_steps=2)
    seen = []
    for _ in range(4):
        seen.append(optimisation.learning_rate)
        push(parameters, optimisation)
        optimisation.step()
    assert seen == pytest.approx(rates)


def test_its_state_continues_exactly():
    (one, first), (two, second) = build(lr_scheduler="cosine"), build(lr_scheduler="cosine")
    for _ in range(3):
        push(one, first)
        first.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # as from a file: torch hands out its own tensors
    with torch.no_grad():
        for p, q in zip(two, one, strict=True):
            p.copy_(q)
    for parameters, optimisation in ((one, first), (two, second)):
        for _ in range(3):
            push(parameters, optimisation)
            optimisation.step()
    assert all(torch.equal(p, q) for p, q in zip(one, two, strict=True))
    assert first.learning_rate == second.learning_rate < 0.1


def test_a_parameter_without_a_gradient_is_a_gradient_of_zero():
    parameters, optimisation = build(adam_weight_decay=0.5)
    optimisation.backward((parameters[1] ** 2).sum())
    assert optimisation.step().grad_norm == pytest.approx(8.0)
    assert torch.allclose(parameters[0], torch.full((3,), 0.95))  # weight decay alone
