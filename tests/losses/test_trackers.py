"""Running averages, quantiles and a controller, by hand and by what they converge to."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from diffalign.losses.trackers import empty_pid, update_ema, update_pid, update_quantile

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


@pytest.mark.parametrize("update", [update_ema, update_quantile])
def test_rates_are_a_tenth_unless_said(update) -> None:
    assert inspect.signature(update).parameters["rate"].default == 0.1


def test_an_average_starts_at_the_mean_and_moves_by_the_rate() -> None:
    first = update_ema(None, t(1, 2, 6))
    assert first.item() == 3.0
    assert update_ema(first, t(8), rate=0.25).item() == pytest.approx(0.75 * 3 + 0.25 * 8)
    assert update_ema(first, t(13)).item() == pytest.approx(4.0)
    assert update_ema(first, t(8), rate=0.0).item() == 3.0
    assert update_ema(first, t(8), rate=1.0).item() == 8.0


def test_a_quantile_starts_at_the_empirical_one_and_moves_by_what_lies_below() -> None:
    first = update_quantile(None, t(0, 1, 2, 3, 4), level=0.25)
    assert first.item() == 1.0
    moved = update_quantile(first, t(0, 0.5, 1, 7), level=0.2, rate=0.5)  # half lie below; 1 itself does not
    assert moved.item() == pytest.approx(1 + 0.5 * (0.2 - 0.5))
    assert update_quantile(first, t(0, 5, 5, 5), level=0.25).item() == 1.0  # the share below is the level
    assert update_quantile(first, t(5, 5), level=0.4).item() == pytest.approx(1.04)
    assert update_quantile(first, t(0), level=0.4).item() == pytest.approx(0.94)


def test_a_quantile_converges() -> None:
    torch.manual_seed(0)
    q = None
    for _ in range(400):
        q = update_quantile(q, torch.randn(64) + 3, level=0.8, rate=0.05)
    assert abs(q.item() - 3.8416) < 0.1


@pytest.mark.parametrize("update", [update_ema, lambda s, x, **k: update_quantile(s, x, level=0.5, **k)])
def test_what_is_not_finite_or_masked_says_nothing(update) -> None:
    clean, dirty = t(1, 2, 6), t(1, math.nan, 2, math.inf, 6, 99)
    mask = torch.tensor([1, 1, 1, 1, 1, 0])
    assert torch.equal(update(None, dirty, mask=mask), update(None, clean))
    state = t(2.5)[0]
    assert torch.equal(update(state, dirty, mask=mask), update(state, clean))
    assert torch.equal(update(state, t(math.nan)), state)
    unstarted = update(None, t(math.nan))
    assert unstarted.isnan() and unstarted.dtype == F64 and unstarted.shape == ()
    assert torch.equal(update(unstarted, clean), update(None, clean))


def test_states_carry_no_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    assert not update_ema(x.mean(), x).requires_grad
    assert not update_quantile(x.mean(), x, level=0.3).requires_grad
    assert not update_pid(empty_pid(), x.mean())[1].requires_grad


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_rates_and_levels_are_shares(bad: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        update_ema(None, t(1), rate=bad)
    with pytest.raises(ValueError, match="rate"):
        update_quantile(None, t(1), level=0.5, rate=bad)
    with pytest.raises(ValueError, match="level"):
        update_quantile(None, t(1), level=bad)


def test_a_state_is_one_number() -> None:
    with pytest.raises(ValueError, match=r"one number.*\(2,\)"):
        update_ema(t(1, 2), t(1))


def test_the_controller_by_hand() -> None:
    state, out = update_pid(empty_pid(), 0.5)
    assert out.item() == pytest.approx(0.3 * 0.5 + 0.01 * 0.5 + 0.05 * 0.5)
    state, out = update_pid(state, torch.tensor(0.2))
    assert out.item() == pytest.approx(0.3 * 0.2 + 0.01 * 0.7 + 0.05 * (0.2 - 0.5))
    assert (state.integral.item(), state.error.item()) == pytest.approx((0.7, 0.2))
    state, out = update_pid(state, 0.9, gains=(0.0, 2.0, 0.0))
    assert state.integral.item() == 1.0 and out.item() == 2.0  # held at the bound
    low, _ = update_pid(empty_pid(), -7.0, bound=3.0)
    assert low.integral.item() == -3.0
    with pytest.raises(ValueError, match="bound"):
        update_pid(empty_pid(), 1.0, bound=0.0)
