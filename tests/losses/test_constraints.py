"""Penalties and their gradients by hand; multipliers move the right way and rest at the threshold."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from diffalign.losses import constraints as con

F64 = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def slope(f, *values: float) -> list[float]:
    x = t(*values).requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0].tolist()


def test_squared_hinge() -> None:
    assert con.squared_hinge(t(1, 2, 5), 2.0, coef=0.5).tolist() == [0, 0, 2.25]
    assert con.squared_hinge(t(1, 5), 2.0).tolist() == [0, 4.5]
    assert slope(lambda x: con.squared_hinge(x, 2.0, coef=0.5), 1, 2, 5) == [0, 0, 1.5]


def test_band() -> None:
    assert con.band(t(0, 1, 2, 3, 5), 1.0, 3.0).tolist() == [1, 0, 0, 0, 2]
    assert slope(lambda x: con.band(x, 1.0, 3.0), 0, 1.5, 2, 5) == [-1, 0, 0, 1]
    assert con.band(t(30, 35, 41), 35.0, 35.0).tolist() == [5, 0, 6]
    assert con.band(t([0, 9], [9, 0]), t(1, 2), t(3, 4)).tolist() == [[1, 5], [6, 2]]


def test_log_barrier() -> None:
    assert torch.allclose(con.log_barrier(t(3, 2.5), 2.0, t=4.0), t(0, math.log(2) / 4))
    assert con.log_barrier(t(2 + math.e), 2.0).item() == pytest.approx(-1 / 20)
    assert slope(lambda x: con.log_barrier(x, 2.0, t=4.0), 2.5, 4) == pytest.approx([-0.5, -0.125])
    floor = con.log_barrier(t(2.0, -9.0), 2.0)
    assert torch.allclose(floor, t(1, 1) * math.log(1000) / 20)
    assert slope(lambda x: con.log_barrier(x, 2.0), 2.0, -9.0) == [0, 0]
    assert con.log_barrier(t(0.0), 2.0, least=0.5).item() == pytest.approx(math.log(2) / 20)
    assert (con.log_barrier(t(100.0), 2.0, t=1e6).abs() < 1e-5).all()


@pytest.mark.parametrize(
    "penalty",
    [con.squared_hinge, con.log_barrier, lambda x, b: con.band(x, b, b + 1)],
    ids=["hinge", "barrier", "band"],
)
def test_penalties_pull_at_the_value_alone(penalty) -> None:
    x, bound = t(0.3, 2.2, 4.1).requires_grad_(), t(0.1, 0.7, 1.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: penalty(v, bound.detach()), (x,))
    grads = torch.autograd.grad(penalty(x, bound).sum(), (x, bound), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is None
    assert penalty(x.detach().bfloat16(), bound).dtype == torch.float32
    big = torch.tensor([1e4, -1e4, 50.0, -50.0], dtype=torch.half).requires_grad_()
    assert torch.autograd.grad(penalty(big, torch.zeros(4)).sum(), big)[0].isfinite().all()


@pytest.mark.parametrize("squash", [torch.sigmoid, torch.tanh, con.identity])
def test_multipliers_follow_the_threshold(squash) -> None:
    xi = t(-0.3, 0.1, 0.6).requires_grad_()
    value, bound = t(5, 2, 1).requires_grad_(), t(3, 2, 4).requires_grad_()
    loss = con.lagrangian(xi, value, bound, squash=squash)
    assert torch.allclose(loss, squash(xi.detach()) * t(2, 0, -3))
    grads = torch.autograd.grad(loss.sum(), (xi, value, bound), allow_unused=True)
    assert grads[0][0] > 0 and grads[0][1] == 0 and grads[0][2] < 0  # descent: down above, still at, up below
    assert grads[1] is None and grads[2] is None
    assert torch.autograd.gradcheck(lambda m: con.lagrangian(m, value.detach(), bound.detach(), squash=squash), (xi,))


def test_a_multiplier_finds_its_threshold() -> None:
    """A reward that rises with its own weight settles at the threshold."""
    xi = torch.zeros(1, dtype=F64)
    for _ in range(100):
        x = xi.clone().requires_grad_()
        loss = con.lagrangian(x, 4 * torch.sigmoid(x), 1.0)
        xi -= torch.autograd.grad(loss.sum(), x)[0]
    assert (4 * torch.sigmoid(xi)).item() == pytest.approx(1.0, abs=1e-3)


def test_weights_of_the_mixture() -> None:
    xi = t(0.0, math.log(3))
    assert torch.allclose(con.lagrangian_weights(xi), t(2 - 1.25, 0.5, 0.75))
    assert torch.allclose(con.lagrangian_weights(t(-0.4), squash=torch.tanh), t(1 + math.tanh(0.4), -math.tanh(0.4)))
    assert torch.allclose(con.lagrangian_weights(t(-1e3, -1e3)), t(2, 0, 0))
    assert not con.lagrangian_weights(xi.requires_grad_()).requires_grad
    for f in (con.lagrangian, con.lagrangian_weights):
        assert inspect.signature(f).parameters["squash"].default is torch.sigmoid
    assert con.lagrangian_weights(torch.zeros(2, dtype=torch.half)).dtype == torch.float32


def test_identity() -> None:
    assert con.identity(torch.tensor([2.5], dtype=torch.half)).dtype == torch.float32
    assert con.identity(t(2.5)).tolist() == [2.5]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: con.squared_hinge(t(1), 0.0, coef=0.0), "coef must be positive"),
        (lambda: con.squared_hinge(t(1), t(1, 2)), r"bound of shape \(2,\) does not fit values of shape \(1,\)"),
        (lambda: con.band(t(1), 2.0, 1.0), "width must be"),
        (lambda: con.band(t(1), 2.0, t(3, 4)), "does not fit"),
        (lambda: con.log_barrier(t(1), 0.0, t=0.0), "t must be positive"),
        (lambda: con.log_barrier(t(1), 0.0, least=0.0), "least must be positive"),
        (lambda: con.lagrangian(t(1), t(1, 2), 0.0), "share one shape"),
        (lambda: con.lagrangian(t(1), t(1), t(1, 2)), "does not fit"),
        (lambda: con.lagrangian_weights(torch.zeros(1, 2)), r"\(K,\), got \(1, 2\)"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
