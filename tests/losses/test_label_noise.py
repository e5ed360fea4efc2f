"""Soft labels, and noise as maps of the label or as a mixture."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from diffalign.losses.label_noise import noise_mixture, robust_noise, soft_label, symmetric_noise
from diffalign.losses.preference import hinge, logistic, pair_margin, square

F64 = torch.float64
Z = torch.tensor([-2.3, -0.4, 0.0, 0.9, 3.1], dtype=F64)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def slope(loss, z: torch.Tensor) -> torch.Tensor:
    z = z.clone().requires_grad_()
    return torch.autograd.grad(loss(z).sum(), z)[0]


def test_a_certain_label_is_the_link_or_its_mirror() -> None:
    assert torch.equal(soft_label(logistic, Z), logistic(Z))
    assert torch.equal(soft_label(logistic, Z, 0.0), logistic(-Z))
    assert torch.equal(soft_label(hinge, Z, torch.ones(5)), hinge(Z))


def test_by_hand() -> None:
    assert soft_label(logistic, t(0.7, -1.3), 0.3).tolist() == pytest.approx([0.8931860, 0.6310085], abs=1e-7)
    assert soft_label(square, t(0.7, -1.3), t(0.3, 0.8)).tolist() == pytest.approx([0.49, 1.69])
    assert soft_label(hinge, t(0.5, 2.0), t(0.25, 0.5)).tolist() == pytest.approx([0.125 + 1.125, 1.5])


def test_logistic_slope_is_prediction_minus_label() -> None:
    p = t(0.1, 0.5, 0.9, 1.4, -0.2)
    assert torch.allclose(slope(lambda z: soft_label(logistic, z, p), Z), Z.sigmoid() - p)
    assert slope(lambda z: soft_label(logistic, z, 0.2), t(math.log(0.25))).item() == pytest.approx(0, abs=1e-15)


def test_an_even_label_is_least_at_zero() -> None:
    assert slope(lambda z: soft_label(logistic, z, 0.5), t(0.0)).item() == 0
    assert soft_label(logistic, Z, 0.5).min().item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8, 1.0])
def test_soft_ipo_is_least_at_a_finite_margin(p: float) -> None:
    tau = 0.1
    link = partial(square, target=1 / (2 * tau))
    assert slope(lambda z: soft_label(link, z, p), t((2 * p - 1) / (2 * tau))).item() == pytest.approx(0, abs=1e-12)


def test_swapping_a_pair_with_its_label_margin_and_betas_changes_nothing() -> None:
    w, k, p = t(0.3, -1.2), t(0.8, 0.4), t(0.7, 0.1)
    here = soft_label(logistic, pair_margin(w, k, beta=0.5, loser_scale=0.4, margin=0.2), p)
    there = soft_label(logistic, pair_margin(k, w, beta=0.2, loser_scale=2.5, margin=-0.2), 1 - p)
    assert torch.allclose(here, there)


def test_labels_do_not_learn_and_margins_do() -> None:
    z, p = t(0.3).requires_grad_(), t(0.7).requires_grad_()
    grads = torch.autograd.grad(soft_label(logistic, z, p).sum(), (z, p), allow_unused=True)
    assert grads[0] is not None and grads[1] is None


def test_one_label_per_row_also_when_rows_and_steps_are_as_many() -> None:
    out = soft_label(logistic, torch.zeros(2, 2, dtype=F64) + 1, t(1.0, 0.0))
    assert torch.equal(out[0], logistic(t(1.0, 1.0))) and torch.equal(out[1], logistic(t(-1.0, -1.0)))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        soft_label(logistic, t(0.0, 0.0), t(1.0, 1.0, 1.0))


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.45])
def test_the_two_maps_are_inverse(flip: float) -> None:
    p = torch.linspace(0.45, 0.55, 5, dtype=F64)
    assert torch.allclose(symmetric_noise(robust_noise(p, flip=flip).clamp(0, 1), flip=flip), p)
    assert torch.allclose(robust_noise(symmetric_noise(p, flip=flip), flip=flip), p)


def test_maps_by_hand() -> None:
    assert symmetric_noise(1.0, flip=0.2) == pytest.approx(0.8) and symmetric_noise(0.25, flip=0.2) == pytest.approx(
        0.35
    )
    assert robust_noise(1.0, flip=0.2) == pytest.approx(4 / 3) and robust_noise(0.0, flip=0.2) == pytest.approx(-1 / 3)
    assert robust_noise(t(0.5), flip=0.3).tolist() == [0.5]
    assert symmetric_noise(torch.tensor([1], dtype=torch.long), flip=0.25).dtype == torch.float32


def test_robust_is_the_published_formula_and_unbiased() -> None:
    eps = 0.2

    def robust(z: torch.Tensor) -> torch.Tensor:
        return soft_label(logistic, z, robust_noise(1.0, flip=eps))

    assert robust(t(0.7)).item() == pytest.approx((0.8 * 0.4031860 - 0.2 * 1.1031860) / 0.6, abs=1e-6)
    assert torch.allclose((1 - eps) * robust(Z) + eps * robust(-Z), logistic(Z))
    assert (slope(robust, torch.linspace(-50, 50, 41, dtype=F64)) < 0).all()
    assert robust(t(50.0, 500.0)).tolist() == pytest.approx([-16.6667, -166.6667], abs=1e-3)


def test_conservative_has_a_finite_optimum() -> None:
    best = t(math.log(0.8 / 0.2))
    assert slope(lambda z: soft_label(logistic, z, symmetric_noise(1.0, flip=0.2)), best).item() == pytest.approx(0)


def test_no_noise_changes_nothing() -> None:
    assert symmetric_noise(0.3, flip=0.0) == robust_noise(0.3, flip=0.0) == 0.3
    assert torch.allclose(noise_mixture(Z, flip=0.0), logistic(Z))


def test_mixture_by_hand_and_bounded() -> None:
    assert noise_mixture(t(0.7, -1.3), flip=0.1).tolist() == pytest.approx([0.4286790, 1.4157293], abs=1e-7)
    assert noise_mixture(t(-1e4), flip=0.1).item() == pytest.approx(-math.log(0.05))
    assert abs(slope(partial(noise_mixture, flip=0.1), t(-40.0)).item()) < 1e-15


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.9])
def test_mixture_is_a_probability(flip: float) -> None:
    both = noise_mixture(Z, flip=flip).neg().exp() + noise_mixture(-Z, flip=flip).neg().exp()
    assert torch.allclose(both, torch.ones_like(both))


@pytest.mark.parametrize("flip", [0.0, 0.1])
def test_gradients(flip: float) -> None:
    assert torch.autograd.gradcheck(partial(noise_mixture, flip=flip), Z.clone().requires_grad_())
    p = robust_noise(torch.linspace(0, 1, 5, dtype=F64), flip=flip)
    assert torch.autograd.gradcheck(lambda z: soft_label(logistic, z, p), Z.clone().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_corners_are_finite(dtype: torch.dtype) -> None:
    z = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], dtype=dtype).requires_grad_()
    for loss in (partial(noise_mixture, flip=0.0), partial(noise_mixture, flip=0.1), partial(soft_label, logistic)):
        out = loss(z)
        (grad,) = torch.autograd.grad(out.sum(), z)
        assert out.dtype == torch.float32 and torch.isfinite(out).all() and torch.isfinite(grad).all()
    assert soft_label(logistic, z, torch.full((5,), 0.3, dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("change", [{"flip": 0.5}, {"flip": -0.1}, {"flip": math.nan}])
def test_bad_rates_are_refused(change: dict) -> None:
    for noise in (symmetric_noise, robust_noise):
        with pytest.raises(ValueError, match=r"\[0, 0.5\)"):
            noise(1.0, **change)


def test_more_bad_input() -> None:
    for flip in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"\[0, 1\)"):
            noise_mixture(t(0.0), flip=flip)
    for noise in (symmetric_noise, robust_noise):
        with pytest.raises(ValueError, match="label must be in"):
            noise(1.1, flip=0.1)
        with pytest.raises(ValueError, match="label must be in"):
            noise(t(0.5, -0.1), flip=0.1)
