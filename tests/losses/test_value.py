"""Minimisers are found by search over a noisy target; gradients and values at hand-worked points."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import value

D = torch.float64
SAMPLES = torch.tensor([-1.3, 0.2, 0.9, 1.7, 4.0], dtype=D)
ALL = [
    value.mse,
    value.huber,
    lambda p, t: value.clipped(p, t, old=torch.zeros_like(p)),
    lambda p, t: value.pinball(p, t, level=0.3),
    value.soft_median,
    lambda p, t: value.expectile(p, t, level=0.7),
    lambda p, t: value.itakura_saito(p, t, alpha=0.7),
]


def argmin(loss) -> float:
    """Minimiser over a grid of step 1e-4 of the mean loss against all samples."""
    grid = torch.arange(-2, 5, 1e-3, dtype=D)
    return grid[loss(grid[:, None].expand(-1, 5), SAMPLES).mean(1).argmin()].item()


def grad(loss, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    pred = pred.clone().requires_grad_()
    return torch.autograd.grad(loss(pred, target).sum(), pred)[0]


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def close(a: torch.Tensor, b: list[float], tol: float = 1e-6) -> None:
    assert a.tolist() == pytest.approx(b, abs=tol)


def test_values_by_hand() -> None:
    pred, target = t(0.0, 1.0, 3.0), t(0.3, 0.6, 1.0)
    close(value.mse(pred, target), [0.045, 0.08, 2.0])
    close(value.huber(pred, target), [0.045, 0.08, 0.875])  # delta .5
    close(value.huber(pred, target, delta=0.2), [0.04, 0.06, 0.38])
    close(value.pinball(pred, target), [0.15, 0.2, 1.0])
    close(value.pinball(pred, target, level=0.9), [0.27, 0.04, 0.2])
    close(value.expectile(pred, target), [0.045, 0.08, 2.0])
    close(value.expectile(pred, target, level=0.9), [0.081, 0.016, 0.4])
    close(value.soft_median(pred, target), [0.7043554, 0.7130153, 1.1269280])
    close(value.itakura_saito(pred, target), [0.0408182, 0.0918247, 4.3890561])
    close(value.itakura_saito(pred, target, alpha=-2.0), [0.0555297, 0.0623322, 0.7545789])


def test_clipped_takes_the_worse_of_moved_and_held() -> None:
    old, target = torch.zeros(4, dtype=D), t(1.0, 1.0, -1.0, 1.0)
    pred = t(0.1, 0.5, 0.5, -0.5)
    close(value.clipped(pred, target, old=old), [0.405, 0.32, 1.125, 1.125])  # held at .2: towards the target it waits
    close(value.clipped(pred, target, old=old, clip=0.3), [0.405, 0.245, 1.125, 1.125])
    close(grad(lambda p, q: value.clipped(p, q, old=old), pred, target), [-0.9, 0.0, 1.5, -1.5])
    down = t(-0.1, -0.5)
    close(value.clipped(down, t(-1.0, -1.0), old=torch.zeros(2, dtype=D)), [0.405, 0.32])
    old = old.requires_grad_()
    loss = value.clipped(pred.clone().requires_grad_(), target, old=old).sum()
    assert torch.autograd.grad(loss, old, allow_unused=True)[0] is None
    shifted = value.clipped(pred + 5, target + 5, old=old + 5)
    assert torch.allclose(shifted, value.clipped(pred, target, old=old), atol=1e-12)


def test_minimisers() -> None:
    assert argmin(value.mse) == pytest.approx(1.1, abs=1e-3)
    assert argmin(value.pinball) == pytest.approx(0.9, abs=1e-3)
    assert argmin(lambda p, q: value.pinball(p, q, level=0.7)) == pytest.approx(1.7, abs=1e-3)
    assert argmin(lambda p, q: value.pinball(p, q, level=0.1)) == pytest.approx(-1.3, abs=1e-3)
    top = argmin(lambda p, q: value.expectile(p, q, level=0.8))
    above, below = (SAMPLES - top).clamp(min=0).sum().item(), (top - SAMPLES).clamp(min=0).sum().item()
    assert 0.8 * above == pytest.approx(0.2 * below, abs=5e-3)


@pytest.mark.parametrize("alpha", [0.8, -0.8])
def test_itakura_saito_learns_the_certainty_equivalent(alpha: float) -> None:
    equivalent = -torch.exp(-alpha * SAMPLES).mean().log().item() / alpha
    assert argmin(lambda p, q: value.itakura_saito(p, q, alpha=alpha)) == pytest.approx(equivalent, abs=1e-3)
    assert (equivalent < 1.1) == (alpha > 0)


def test_itakura_saito_tends_to_mse_and_depends_on_the_error_alone() -> None:
    pred, target = t(0.4, -1.0), t(1.0, 2.0)
    close(value.itakura_saito(pred, target, alpha=1e-4) - value.mse(pred, target), [0, 0], tol=1e-3)
    moved = value.itakura_saito(pred + 7, target + 7)
    assert torch.allclose(moved, value.itakura_saito(pred, target), atol=1e-12)


def test_itakura_saito_goes_on_along_its_tangent() -> None:
    far = t(2.0, 3.0, 1e4)
    loss = value.itakura_saito(far, torch.zeros(3, dtype=D), max_exponent=2.0)
    slope = math.exp(2) - 1
    close(loss, [math.exp(2) - 3, math.exp(2) - 3 + slope, math.exp(2) - 3 + slope * (1e4 - 2)])
    close(grad(lambda p, q: value.itakura_saito(p, q, max_exponent=2.0), far, torch.zeros(3, dtype=D)), [slope] * 3)
    at_default = grad(value.itakura_saito, t(9.0, 10.0, 25.0), torch.zeros(3, dtype=D)) + 1
    assert at_default.log().tolist() == pytest.approx([9, 10, 10])


def test_pinball_takes_one_level_per_column() -> None:
    loss = value.pinball(torch.zeros(1, 2, dtype=D), torch.ones(1, 1, dtype=D), level=t(0.25, 0.75))
    close(loss[0], [0.25, 0.75])


@pytest.mark.parametrize("loss", ALL)
def test_every_loss_keeps_its_contract(loss) -> None:
    pred = torch.tensor([0.31, -0.72, 1.9], dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: loss(p, t(0.8, -1.1, 0.4)), pred)
    target = torch.zeros(3, dtype=D, requires_grad=True)
    assert torch.autograd.grad(loss(pred, target).sum(), target, allow_unused=True)[0] is None
    for dtype in (torch.float16, torch.bfloat16):
        far = torch.tensor([-1e4, 50.0, 0.0, 1e4], dtype=dtype, requires_grad=True)
        out = loss(far, torch.zeros(4, dtype=dtype))
        (back,) = torch.autograd.grad(out.sum(), far)
        assert out.dtype == torch.float32 and torch.isfinite(out).all() and torch.isfinite(back).all()
    assert loss(torch.zeros(2, 3), torch.ones(3)).shape == (2, 3)


@pytest.mark.parametrize("loss", ALL)
def test_bad_input_is_refused(loss) -> None:
    with pytest.raises(ValueError, match="fit"):
        loss(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="fit"):
        loss(torch.zeros(3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="floating"):
        loss(torch.zeros(3, dtype=torch.long), torch.zeros(3))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.1])
def test_levels_lie_between(level: float) -> None:
    for loss in (value.pinball, value.expectile):
        with pytest.raises(ValueError, match="level"):
            loss(torch.zeros(1), torch.zeros(1), level=level)


def test_knobs_out_of_range_are_refused() -> None:
    x = torch.zeros(1)
    with pytest.raises(ValueError, match="delta"):
        value.huber(x, x, delta=0)
    with pytest.raises(ValueError, match="clip"):
        value.clipped(x, x, old=x, clip=0)
    with pytest.raises(ValueError, match="alpha"):
        value.itakura_saito(x, x, alpha=0)


def test_risk_averse_read_out() -> None:
    quantiles, levels = t(1.0, 2.0, 6.0, 9.0)[None], t(0.2, 0.4, 0.6, 0.8)
    assert value.lower_mean(quantiles, levels, below=1.0).item() == pytest.approx(4.5)
    assert value.lower_mean(quantiles, levels, below=0.4).item() == pytest.approx(1.5)
    assert value.lower_mean(quantiles, levels, below=0.2).item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="lowest is 0.2"):
        value.lower_mean(quantiles, levels, below=0.1)
    with pytest.raises(ValueError, match="one level each"):
        value.lower_mean(quantiles, levels[:3], below=1.0)
    assert value.lower_mean(quantiles[0], t(0.5, 0.7, 0.9, 1.0), below=1.0).item() == pytest.approx(4.5)
