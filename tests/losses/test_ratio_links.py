"""Ratio links: slopes, limits, the equality of two conventions, clamps and hard clips."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from diffalign.losses.ratio_links import clip_link, js_link, power_link

F64 = torch.float64
R = torch.tensor([-1.7, -0.2, 0.0, 0.3, 2.4], dtype=F64)
LINKS = [partial(power_link, alpha=0.25), partial(power_link, alpha=-1.0), partial(power_link, alpha=0.0), js_link]


def slope(link, r: torch.Tensor) -> torch.Tensor:
    r = r.clone().requires_grad_()
    return torch.autograd.grad(link(r).sum(), r)[0]


def test_power_by_hand() -> None:
    r = torch.tensor([math.log(4.0)], dtype=F64)
    assert power_link(r, alpha=0.5).item() == pytest.approx(1.0)  # (1 - 1/2) / (1/2)
    assert power_link(r, alpha=1.0).item() == pytest.approx(0.75)  # forward KL: 1 - 1/u
    assert power_link(r, alpha=-1.0).item() == pytest.approx(3.0)  # Pearson: u - 1


@pytest.mark.parametrize("alpha", [-1.0, 0.25, 1.0])
def test_power_has_the_slope_of_its_name_and_passes_through_the_origin(alpha: float) -> None:
    assert torch.allclose(slope(partial(power_link, alpha=alpha), R), (-alpha * R).exp())
    assert power_link(torch.zeros(1), alpha=alpha).item() == 0


@pytest.mark.parametrize("alpha", [1e-7, -1e-7])
def test_a_small_power_is_the_log_ratio(alpha: float) -> None:
    assert torch.allclose(power_link(R, alpha=alpha), R, atol=1e-6)
    assert torch.equal(power_link(R, alpha=0.0), R)


@pytest.mark.parametrize("alpha", [-0.5, 0.25, 2.0])
def test_both_conventions_of_alpha_are_one_function(alpha: float) -> None:
    u, other = R.exp(), 1 - alpha
    assert torch.allclose(power_link(R, alpha=alpha), (u ** (other - 1) - 1) / (other - 1))


def test_jensen_shannon_is_bounded_above() -> None:
    assert js_link(torch.tensor([0.0, 0.7], dtype=F64)).tolist() == pytest.approx([-math.log(2), -0.4031860], abs=1e-7)
    assert js_link(torch.tensor([1e4])).item() <= 0 and js_link(torch.tensor([-1e4])).item() == -1e4


@pytest.mark.parametrize("link", [*LINKS, partial(clip_link, eps=0.9)])
def test_increasing_so_the_sign_of_a_pair_is_kept(link) -> None:
    assert (link(R).diff() > 0).all()


def test_clip_is_hard_on_both_sides() -> None:
    r = torch.tensor([-0.2, -0.1, 0.09, 0.1], dtype=F64)
    assert clip_link(r).tolist() == pytest.approx([-0.1053605, -0.1, 0.09, 0.0953102], abs=1e-7)
    assert slope(clip_link, r).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert clip_link(r, eps=0.5).tolist() == r.tolist()
    assert clip_link(torch.tensor([5.0], dtype=F64), eps=0.5).item() == pytest.approx(math.log(1.5))


def test_the_exponent_is_held_where_it_would_overflow() -> None:
    r = torch.tensor([-1e4, -50.0, 50.0, 1e4]).requires_grad_()
    for alpha in (0.25, -0.25, 2.0, -2.0):
        out = power_link(r, alpha=alpha)
        (grad,) = torch.autograd.grad(out.sum(), r)
        assert torch.isfinite(out).all() and torch.isfinite(grad).all()
    held = power_link(torch.tensor([-7.0, -3.0], dtype=F64), alpha=1.0, max_exp=5.0)
    assert held.tolist() == pytest.approx([1 - math.exp(5), 1 - math.exp(3)])
    far = power_link(torch.tensor([-1e3], dtype=F64), alpha=1.0)
    assert far.item() == pytest.approx(1 - math.exp(80))


@pytest.mark.parametrize("link", [*LINKS, clip_link])
def test_gradient_and_precision(link) -> None:
    assert torch.autograd.gradcheck(link, R.clone().requires_grad_())
    half = R.to(torch.bfloat16)
    assert link(half).dtype == torch.float32 and torch.equal(link(half), link(half.float()))
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(link(R[order]), link(R)[order])


def test_bad_settings_are_refused() -> None:
    for eps in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"eps must be in \(0, 1\)"):
            clip_link(R, eps=eps)
    with pytest.raises(ValueError, match="max_exp"):
        power_link(R, alpha=1.0, max_exp=0.0)
