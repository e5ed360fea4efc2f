"""Combinations by hand, what a weight of 0 and a NaN do, gates and tiers."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import group_advantage
from diffalign.losses import reward_combination as rc

F64 = torch.float64
NAN = math.nan


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def close(x: torch.Tensor, *values: float) -> bool:
    return torch.allclose(x, t(*values), atol=1e-9, rtol=1e-9, equal_nan=True)


R = t([1, 4, 0.5], [2, 0.25, 3])

COMBINE = {
    "weighted_sum": rc.weighted_sum,
    "harmonic": rc.harmonic,
    "log_sum": rc.log_sum,
    "tchebycheff": rc.tchebycheff,
}


@pytest.fixture(params=COMBINE.values(), ids=COMBINE)
def combine(request):
    return request.param


def test_by_hand() -> None:
    assert close(rc.weighted_sum(R, [2, -0.5]), 1, 7.875, -0.5)
    assert close(rc.product(R), 2, 1, 1.5)
    assert torch.allclose(rc.harmonic(R, [0.3, 0.7]), t(1 / 0.65, 1 / 2.875, 1 / (0.6 + 0.7 / 3)), rtol=1e-6)
    assert close(
        rc.log_sum(R, [2, 0.5]), 0.5 * math.log(2), 2 * math.log(4) - 0.5 * math.log(4), 0.5 * math.log(0.1875)
    )
    assert close(rc.tchebycheff(R, [2, 0.5]), 1, 0.125, 1)
    assert close(rc.tchebycheff(R, [2, 0.5], ideal=[4, 3]), -6, -1.375, -7)


def test_harmonic_of_the_paper() -> None:
    two = t(0.8, 0.6)
    for weight, expected in ((1, 0.8), (0, 0.6), (0.3, 0.648649)):
        assert rc.harmonic(two, [weight, 1 - weight]).item() == pytest.approx(expected, abs=1e-6)
    assert rc.harmonic(t(0.7, 0.7), [0.3, 0.7]).item() == pytest.approx(0.7)
    assert rc.harmonic(t(0.0, 0.7), [0.5, 0.5]).item() == pytest.approx(2e-8, rel=1e-6)
    assert rc.harmonic(t(0.0, 0.7), [0.5, 0.5], eps=0.1).item() == pytest.approx(1 / (5 + 0.5 / 0.8))


def test_a_logarithm_has_a_floor() -> None:
    assert rc.log_sum(t([0.0], [1.0]), [1, 1]).item() == pytest.approx(math.log(1e-8))
    assert rc.log_sum(t([0.0], [1.0]), [1, 1], eps=0.5).item() == pytest.approx(math.log(0.5))


def test_a_weight_of_0_drops_the_reward_even_if_it_is_nan(combine) -> None:
    other = t([1, NAN, 0.5], [2, 0.25, math.inf], [NAN, NAN, NAN])
    alone = combine(R[:1, :1], [1.5])
    assert torch.equal(combine(other, [1.5, 0, 0])[:1], alone)
    per_prompt = t([1, 0, 1], [0, 1, 0], [0, 0, 0])
    assert close(rc.weighted_sum(other, per_prompt), 1, 0.25, 0.5)


def test_a_counted_nan_drops_the_sample(combine) -> None:
    bad = R.clone()
    bad[1, 0], bad[0, 2] = NAN, math.inf
    out = combine(bad, [0.3, 0.7])
    assert out.isnan().tolist() == [True, False, True]
    assert out[1] == combine(R, [0.3, 0.7])[1]
    assert rc.product(bad).isnan().tolist() == [True, False, True]


def test_gradients(combine) -> None:
    r = R.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: combine(x, [0.3, 0.7]), (r,))
    assert torch.autograd.gradcheck(rc.product, (r,))
    weights = t(0.3, 0.7).requires_grad_()
    assert not combine(R, weights).requires_grad
    bad = R.clone()
    bad[0, 0] = NAN
    bad.requires_grad_()
    grad = torch.autograd.grad(combine(bad, [0.3, 0.7])[1:].sum(), bad)[0]
    assert grad.isfinite().all() and grad[:, 0].abs().sum() == 0 and grad[:, 1].abs().sum() > 0


def test_permuting_samples_permutes_results(combine) -> None:
    order = [2, 0, 1]
    assert torch.equal(combine(R[:, order], [0.3, 0.7]), combine(R, [0.3, 0.7])[order])


def test_weights_may_be_a_tensor_of_each_rank(combine) -> None:
    r = torch.rand(2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.5
    w = t(0.3, 0.7)
    expected = combine(r, [0.3, 0.7])
    assert expected.shape == (3, 4)
    for weights in (w, w[:, None, None], w[:, None, None].expand(2, 3, 1), w[:, None, None].expand(2, 3, 4)):
        assert torch.equal(combine(r, weights), expected)
    assert combine(torch.ones(2, 3, dtype=torch.long), w).dtype == torch.float32
    assert combine(r.bfloat16(), w).dtype == torch.float32


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], r"\(1,\) do not fit rewards of shape \(2, 3\)"),
        ([1.0, 2.0, 3.0], "do not fit"),
        (t([1, 1]), "do not fit"),
        (torch.ones(2, 2), "do not fit"),
        (torch.ones(2, 3, 1), "do not fit"),
        (torch.tensor(1.0), "do not fit"),
        ([0.0, 0.0], "at least one not 0"),
        ([1.0, NAN], "finite"),
        ([1.0, math.inf], "finite"),
    ],
)
def test_weights_that_do_not_fit(combine, weights, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        combine(R, weights)


def test_what_is_unbounded_is_refused() -> None:
    with pytest.raises(ValueError, match="rewards must be"):
        rc.harmonic(-R, [1, 1])
    with pytest.raises(ValueError, match="weights must be"):
        rc.harmonic(R, [1, -1])
    with pytest.raises(ValueError, match="rewards must be"):
        rc.log_sum(-R, [1, 1])
    with pytest.raises(ValueError, match="weights must be"):
        rc.tchebycheff(R, [1, -1])
    with pytest.raises(ValueError, match="ideal values"):
        rc.tchebycheff(R, [1, 1], ideal=[1])
    assert rc.harmonic(t([1.0], [-1.0]), [1, 0]).item() == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [torch.tensor(1.0), torch.zeros(0, 3)])
def test_a_stack_has_a_first_axis(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="K first"):
        rc.stacked(bad)


def test_a_gate() -> None:
    r = t(5, 6, 7, NAN, NAN)
    passed = t([1, 1, 0, 0, 1], [1, 0, 0, 1, 1])
    assert close(rc.gate(r, passed), 5, 0, 0, 0, NAN)
    assert close(rc.gate(r, passed.bool(), floor=-1.5), 5, -1.5, -1.5, -1.5, NAN)
    assert close(rc.gate(t(5, 6, 7), t([NAN, NAN, 1], [0, 1, NAN])), 0, NAN, NAN)
    assert rc.gate(torch.ones(2), torch.ones(1, 2)).dtype == torch.float32


def test_a_closed_gate_gives_a_group_no_advantage() -> None:
    adv = group_advantage(rc.gate(t([1, 2, 5]), torch.zeros(1, 1, 3)))
    assert adv.tolist() == [[0, 0, 0]]


def test_a_gate_passes_gradients_where_it_is_open() -> None:
    r = t(5, 6, NAN).requires_grad_()
    assert torch.autograd.grad(rc.gate(r, t([1, 0, 0])).sum(), r)[0].tolist() == [1, 0, 0]


def test_all_passed() -> None:
    passed = t([1, 1, 1, NAN, 1], [1, 0, NAN, 0, 1], [1, 1, 1, 1, NAN])
    assert close(rc.passed_all(passed), 1, 0, NAN, 0, NAN)


def test_verdicts_carry_no_gradient() -> None:
    assert not rc.passed_all(t([1, 0], [1, 1]).requires_grad_()).requires_grad


def test_tiers() -> None:
    passed = t([1, 0, 1, 1, 0, 1], [1, 1, 0, 1, NAN, NAN], [1, 1, 1, 0, 0, 0])
    assert close(rc.tiers(passed, [-1, 0.2, 0.5, 2]), 2, -1, 0.2, 0.5, -1, NAN)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rc.gate(t(1, 2), t([1, 0.5])), "compare a score with a threshold"),
        (lambda: rc.gate(t(1, 2), t([1, -1])), "compare a score with a threshold"),
        (lambda: rc.gate(t(1, 2), t(1, 1)), r"\(C, ...\).*\(2,\).*\(2,\)"),
        (lambda: rc.tiers(t([1], [1]), [0, 1]), "2 checks have 3 tiers, got 2"),
        (lambda: rc.tiers(t([2], [1]), [0, 1, 2]), "compare a score"),
    ],
)
def test_bad_checks(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
