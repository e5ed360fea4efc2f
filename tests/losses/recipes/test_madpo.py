"""MADPO's weight: fixed points of the factor, both regimes of the optimum, corners."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.preference import logistic
from diffalign.losses.recipes.madpo import margin_adaptive_weight, margin_gain

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def optimum(h: float, tau: float) -> float:
    """Implicit margin at which the weighted loss is least, labels being drawn from Bradley-Terry at margin ``h``."""
    weight = margin_adaptive_weight(t(h, -h), tau=tau) * t(h, -h).sigmoid()

    def slope(z: float) -> float:
        x = t(z).requires_grad_()
        loss = weight[0] * logistic(x) + weight[1] * logistic(-x)
        return torch.autograd.grad(loss.sum(), x)[0].item()

    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low


def test_factor_by_hand() -> None:
    assert margin_gain(t(1.3, -1.3), tau=2.0).tolist() == pytest.approx([1.2525698] * 2, abs=1e-6)
    other = margin_gain(t(0.5), tau=1.0, c_min=0.25, c_max=1.5, lam=2.0)  # .25 + 1.25 / (1 + (2/3) / e)
    assert other.item() == pytest.approx(0.25 + 1.25 / (1 + 2 / (3 * math.e)))


@pytest.mark.parametrize(("tau", "lam"), [(0.0, 1.0), (2.0, 0.7), (6.9, 3.0)])
def test_factor_is_one_at_tau_and_bounded(tau: float, lam: float) -> None:
    assert margin_gain(t(tau, -tau), tau=tau, lam=lam).tolist() == pytest.approx([1.0, 1.0])
    c = margin_gain(torch.linspace(-40, 40, 81, dtype=F64), tau=tau, lam=lam)
    assert (c < 2).all() and (c >= 0.5).all()
    assert c[0].item() == pytest.approx(0.5, abs=1e-9)


def test_weight_by_hand() -> None:
    w = margin_adaptive_weight(t(1.3, -1.3, -2.5), tau=2.0)
    sigmoid = [1 / (1 + math.exp(-x)) for x in (1.62834, 1.3)]
    assert w[0].item() == pytest.approx(sigmoid[0] / sigmoid[1], abs=1e-5)
    assert w[1].item() == pytest.approx((1 - sigmoid[0]) / (1 - sigmoid[1]), abs=1e-5)
    assert w[2].item() == 1


def test_the_swapped_side_is_left_alone_from_tau_on() -> None:
    inside, at = margin_adaptive_weight(t(-1.9999, -2.0), tau=2.0, lam=5.0, c_max=4.0)
    assert at.item() == 1 and inside.item() == pytest.approx(1, abs=1e-3) and inside.item() != 1
    assert margin_adaptive_weight(t(-3.0), tau=2.0).item() == 1
    assert margin_adaptive_weight(t(-3.0), tau=math.log(999)).item() < 0.2
    assert margin_adaptive_weight(t(3.0), tau=2.0).item() < 1 < margin_adaptive_weight(t(1.0), tau=2.0).item()


def test_small_margins_are_stretched_to_the_factor() -> None:
    assert optimum(1.3, tau=2.0) == pytest.approx(1.62834, abs=2e-5)


def test_large_margins_are_damped_only_within_tau() -> None:
    assert optimum(3.0, tau=2.0) == pytest.approx(2.943, abs=5e-4)
    c = margin_gain(t(3.0), tau=2.0).item()
    assert c * 3 == pytest.approx(2.199, abs=5e-4)
    assert math.log(1 / (1 + math.exp(-3 * c))) + math.log(1 + math.exp(3)) == pytest.approx(2.943, abs=5e-4)
    assert optimum(3.0, tau=math.log(999)) == pytest.approx(3 * margin_gain(t(3.0), tau=math.log(999)).item(), abs=1e-4)


def test_no_steepness_is_no_weight() -> None:
    h = torch.linspace(-4, 4, 9, dtype=F64)
    assert torch.allclose(margin_adaptive_weight(h, tau=5.0, lam=0.0), torch.ones_like(h))


def test_defaults() -> None:
    for f in (margin_gain, margin_adaptive_weight):
        assert f.__kwdefaults__ == {"c_min": 0.5, "c_max": 2.0, "lam": 1.0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_far_out_is_finite_and_nothing_learns(dtype: torch.dtype) -> None:
    h = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], dtype=dtype, requires_grad=True)
    for f in (margin_gain, margin_adaptive_weight):
        out = f(h, tau=1e5)
        assert out.dtype == torch.float32 and torch.isfinite(out).all() and not out.requires_grad
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.equal(margin_adaptive_weight(h[order], tau=2.0), margin_adaptive_weight(h, tau=2.0)[order])


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("c_min must be in", {"c_min": 0.0}),
        ("c_min must be in", {"c_min": 1.0}),
        ("c_min must be in", {"c_max": 1.0}),
        ("lam", {"lam": -1.0}),
        ("tau", {"tau": -1.0}),
    ],
)
def test_bad_settings_are_refused(said: str, change: dict) -> None:
    with pytest.raises(ValueError, match=said):
        margin_adaptive_weight(t(0.0), **{"tau": 2.0, **change})


def test_madpo_by_hand() -> None:
    """h = 2, tau = log 999: c = .5 + 1.5 / (1 + 2 exp(2 - tau)), times DPO at beta .1."""
    c = 0.5 + 1.5 / (1 + 2 * math.exp(2) / 999)
    weight = (1 + math.exp(-2)) / (1 + math.exp(-2 * c))
    found = recipes.get("madpo")(t(3.0), t(1.0), t(2.0)).item()
    assert found == pytest.approx(weight * math.log1p(math.exp(-0.2)), abs=1e-9)
    expected = {"beta": 0.1, "tau": math.log(999), "c_min": 0.5, "c_max": 2.0, "lam": 1.0}
    assert dict(recipes.get("madpo").defaults) == expected


def test_madpo_damps_large_margins_at_its_tau_and_the_weight_does_not_learn() -> None:
    h = t(5.0, -5.0).requires_grad_()
    losses = recipes.get("madpo")(t(1.0, 1.0), t(0.0, 0.0), h)
    plain = recipes.get("dpo")(t(1.0), t(0.0))
    assert not losses.requires_grad and losses[1] < 0.1 * plain  # the class's tau of 2 leaves the swapped side at 1
    assert margin_gain(t(6.907), tau=math.log(999)).item() == pytest.approx(1.0, abs=1e-3)
