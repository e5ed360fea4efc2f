"""Weights of checks by hand; a repeated check counts once; checks that were not made count nowhere."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from diffalign.losses import check_weights as cw

F64 = torch.float64
NAN = math.nan


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


PASSED = t([1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0])  # pass rates 1, 1/4, 1/4


def test_by_hand() -> None:
    like = math.exp(-(0.75**2) / (2 * 0.5**2))
    expected = t(math.exp(-2) / (1 + 2 * like + 0.1), *[math.exp(-0.5) / (2 + like + 0.1)] * 2)
    assert torch.allclose(cw.check_weights(PASSED, alpha=2.0, sigma=0.5, delta=0.1), expected)


def test_constants_are_ours() -> None:
    defaults = {k: p.default for k, p in inspect.signature(cw.check_weights).parameters.items() if k != "passed"}
    assert defaults == {"alpha": 1.0, "sigma": 0.1, "delta": 1e-6}
    assert torch.allclose(cw.check_weights(PASSED), cw.check_weights(PASSED, alpha=1.0, sigma=0.1, delta=1e-6))


def test_equal_rates_give_equal_weights() -> None:
    passed = t([1, 0, 1], [0, 1, 0])
    w = cw.check_weights(passed)
    assert torch.allclose(w, w[:1].expand(3))
    local = cw.local_reward(passed, w)
    assert torch.allclose(local / local.sum(), passed.mean(1) / passed.mean(1).sum())


def test_a_check_that_stands_twice_changes_no_reward() -> None:
    twice = torch.cat([PASSED, PASSED[:, :1]], 1)
    once = cw.local_reward(PASSED, cw.check_weights(PASSED, sigma=0.01, delta=0.0))
    assert torch.allclose(cw.local_reward(twice, cw.check_weights(twice, sigma=0.01, delta=0.0)), once)


def test_without_difficulty_and_density_it_is_the_satisfied_share() -> None:
    w = cw.check_weights(PASSED, alpha=0.0, sigma=math.inf, delta=0.0)
    assert torch.allclose(cw.local_reward(PASSED, w), PASSED.mean(1))


def test_hard_checks_weigh_more() -> None:
    w = cw.check_weights(t([1, 1], [1, 0], [1, 0]), sigma=0.01)
    assert (w[1] / w[0]).item() == pytest.approx(math.exp(2 / 3))


def test_groups_do_not_mix() -> None:
    both = torch.stack([PASSED, 1 - PASSED])
    w = cw.check_weights(both)
    assert w.shape == (2, 3) and torch.equal(w[1], cw.check_weights(1 - PASSED))
    assert torch.equal(cw.local_reward(both, w)[1], cw.local_reward(1 - PASSED, w[1]))
    assert torch.equal(cw.global_reward(both)[1], cw.global_reward(1 - PASSED))


def test_checks_not_made() -> None:
    gaps = torch.cat([PASSED, t([NAN], [NAN], [NAN], [NAN])], 1)
    w = cw.check_weights(gaps)
    assert torch.equal(w[:3], cw.check_weights(PASSED)) and w[3] == 0
    assert torch.allclose(cw.local_reward(gaps, w), cw.local_reward(PASSED, w[:3]))
    assert torch.equal(cw.check_weights(torch.stack([gaps, gaps])), torch.stack([w, w]))
    half = t([1, NAN, 0], [NAN, NAN, NAN])
    out = cw.local_reward(half, t(0.5, 0.3, 0.2))
    assert out[0].item() == pytest.approx(0.5 / 0.7) and out[1].isnan()
    rates = cw.check_weights(t([1, 0], [NAN, 1], [0, 1]), sigma=0.01, delta=0.0)
    assert torch.allclose(rates, t(math.exp(-0.5), math.exp(-2 / 3)))


def test_local_reward_by_hand() -> None:
    assert torch.allclose(cw.local_reward(PASSED, t(0.5, 2, 0.25)), t(0.75, 0.5, 2.5, 0.5))


def test_global_reward() -> None:
    passed = t([1, 1], [1, 0], [1, NAN], [0, NAN])
    out = cw.global_reward(passed)
    assert out[:2].tolist() == [1, 0] and out[2].isnan() and out[3] == 0
    out = cw.global_reward(passed, torch.tensor([3, 2, 1, 1]), gamma=0.5)
    assert out[:2].tolist() == [0.125, 0] and out[2].isnan()
    assert cw.global_reward(passed[:1], torch.tensor([5])).tolist() == [1]


def test_everything_is_detached_and_wide() -> None:
    p = torch.tensor([[1.0, 0.0]], dtype=torch.half).requires_grad_()
    w = torch.ones(2, requires_grad=True)
    outs = cw.check_weights(p), cw.local_reward(p, w), cw.global_reward(p, torch.ones(1, requires_grad=True))
    assert all(not x.requires_grad and x.dtype == torch.float32 for x in outs)
    assert cw.check_weights(torch.tensor([[True, False]])).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: cw.check_weights(t(1, 0)), r"\(..., N, U\)"),
        (lambda: cw.check_weights(torch.zeros(0, 3)), r"\(0, 3\)"),
        (lambda: cw.check_weights(PASSED, sigma=0.0), "sigma must be positive"),
        (lambda: cw.check_weights(PASSED, alpha=NAN), "alpha finite"),
        (lambda: cw.check_weights(PASSED, delta=-1.0), "delta must be"),
        (lambda: cw.local_reward(PASSED, t(1, 1)), "share one shape"),
        (lambda: cw.local_reward(PASSED, t(1, 1, -1)), "weights must be"),
        (lambda: cw.global_reward(PASSED, t(1, 1)), "share one shape"),
        (lambda: cw.global_reward(PASSED, gamma=0.0), "gamma must be positive"),
        (lambda: cw.global_reward(PASSED, gamma=1.1), r"gamma must be in \[0, 1\]"),
        (lambda: cw.global_reward(PASSED / 2), "compare a score"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
