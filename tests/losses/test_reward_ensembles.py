"""Ensembles: bounds between the combinations, members that drop out, gradients without spread."""

from __future__ import annotations

import inspect
import math
from functools import partial

import pytest
import torch

from diffalign.losses import reward_ensembles as ens

F64 = torch.float64
NAN = math.nan


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


R = t([1, 4, -2], [2, 0.5, 1], [6, 3, 1])

COMBINE = {
    "ensemble_mean": ens.ensemble_mean,
    "worst_case": ens.worst_case,
    "mean_var": ens.mean_var,
    "mean_std": partial(ens.mean_std, coef=0.7),
    "soft_min": ens.soft_min,
    "soft_max": partial(ens.soft_min, temperature=-0.4),
    "robust": lambda r: ens.robust(r, torch.ones_like(r[0]), weight=0.25),
    "most_confident": lambda r: ens.most_confident(r, torch.arange(1.0, 1 + r.numel()).reshape(r.shape)),
}


@pytest.fixture(params=COMBINE.values(), ids=COMBINE)
def combine(request):
    return request.param


def test_by_hand() -> None:
    assert torch.allclose(ens.ensemble_mean(R), t(3, 2.5, 0))
    assert torch.equal(ens.worst_case(R), t(1, 0.5, -2))
    assert torch.allclose(ens.ensemble_variance(R), t(7, 3.25, 3))
    assert torch.allclose(ens.ensemble_variance(R, unbiased=False), t(14, 6.5, 6) / 3)
    assert torch.allclose(ens.ensemble_std(R), t(7, 3.25, 3).sqrt())
    assert torch.allclose(ens.mean_var(R), t(2.3, 2.175, -0.3))
    assert torch.allclose(ens.mean_var(R, coef=-1, unbiased=False), t(3 + 14 / 3, 2.5 + 6.5 / 3, 2))
    assert torch.allclose(ens.mean_std(R, coef=2), t(3, 2.5, 0) - 2 * t(7, 3.25, 3).sqrt())
    assert torch.allclose(ens.mean_std(R, coef=2, unbiased=False), t(3, 2.5, 0) - 2 * (t(14, 6.5, 6) / 3).sqrt())
    assert torch.allclose(ens.robust(R, t(4, 4, NAN), weight=0.25), t(1.75, 1.375, NAN), equal_nan=True)
    assert torch.equal(ens.most_confident(R, t([3, 1, 2], [2, 2, 1], [1, 3, 3])), t(6, 4, 1))


def test_two_members_and_little_spread() -> None:
    r = t([0.0, 1.0], [0.5, 4.0])
    assert torch.allclose(ens.ensemble_variance(r), t(0.125, 4.5))
    assert torch.allclose(ens.ensemble_std(r), t(0.125, 4.5).sqrt())
    assert (ens.ensemble_std(r[:1]) < 1e-100).all()


def test_soft_minimum_against_its_definition_in_the_open() -> None:
    members = t(1.0, 2.5)
    by_hand = -0.3 * math.log((math.exp(-1 / 0.3) + math.exp(-2.5 / 0.3)) / 2)
    assert ens.soft_min(members[:, None]).item() == pytest.approx(by_hand)
    up = 0.8 * math.log((math.exp(1 / 0.8) + math.exp(2.5 / 0.8)) / 2)
    assert ens.soft_min(members[:, None], temperature=-0.8).item() == pytest.approx(up)


def test_order_and_limits() -> None:
    low, mean = ens.worst_case(R), ens.ensemble_mean(R)
    for a in (0.1, 1.0, 10.0):
        assert (low < ens.soft_min(R, temperature=a)).all() and (ens.soft_min(R, temperature=a) < mean).all()
        assert (ens.soft_min(R, temperature=-a) > mean).all()
    assert torch.allclose(ens.soft_min(R, temperature=1e-6), low, atol=1e-5)
    assert torch.allclose(ens.soft_min(R, temperature=1e6), mean, atol=1e-5)
    assert torch.allclose(ens.soft_min(R.float(), temperature=1e6), mean.float(), atol=1e-4)
    assert torch.allclose(ens.soft_min(R, temperature=-1e-6), R.amax(0), atol=1e-5)


def test_equal_members_give_the_member(combine) -> None:
    r = t([0.1, 7.0]).expand(3, 2)
    expected = 0.25 + 0.75 * r[0] if combine is COMBINE["robust"] else r[0]
    assert torch.allclose(combine(r), expected)
    assert torch.allclose(combine(r[:1]), expected)


def test_a_shift_of_all_shifts_the_result(combine) -> None:
    shift = 0.75 if combine is COMBINE["robust"] else 1.0
    assert torch.allclose(combine(R + 2), combine(R) + 2 * shift)


def test_a_member_that_is_nan_or_infinite_is_left_out(combine) -> None:
    bad = R.clone()
    bad[2, 0], bad[2, 1], bad[2, 2] = NAN, math.inf, -math.inf
    assert torch.allclose(combine(bad), combine(R[:2]))


def test_a_sample_that_nobody_scored_gets_nan(combine) -> None:
    bad = R.clone()
    bad[:, 1] = NAN
    assert combine(bad).isnan().tolist() == [False, True, False]


def test_gradients_reach_the_members_that_count_and_no_others(combine) -> None:
    bad = R.clone()
    bad[2, 0], bad[:, 1] = NAN, NAN
    bad.requires_grad_()
    grad = torch.autograd.grad(combine(bad)[0], bad)[0]
    assert grad.isfinite().all() and grad[:2, 0].abs().sum() > 0
    assert grad[2, 0] == 0 and grad[:, 1:].abs().sum() == 0
    grad = torch.autograd.grad(combine(bad).nansum(), bad)[0]
    assert grad.isfinite().all()
    assert torch.autograd.gradcheck(combine, (R.clone().requires_grad_(),))


def test_gradients_without_spread_are_finite(combine) -> None:
    r = torch.full((3, 2), 0.5, dtype=F64, requires_grad=True)
    grad = torch.autograd.grad(combine(r).sum(), r)[0]
    assert grad.isfinite().all()


def test_large_and_half_precision_rewards_are_finite(combine) -> None:
    r = torch.tensor([[1e4], [-1e4], [3.0]]).bfloat16().requires_grad_()
    out = combine(r)
    assert out.dtype == torch.float32 and out.isfinite().all()
    assert torch.autograd.grad(out.sum(), r)[0].isfinite().all()
    dropped = torch.tensor([[1e4], [NAN], [1e4]]).requires_grad_()  # a hole far below the rest must not overflow
    assert torch.autograd.grad(combine(dropped).sum(), dropped)[0].isfinite().all()


def test_members_are_exchangeable() -> None:
    for name in ("ensemble_mean", "worst_case", "mean_var", "mean_std", "soft_min"):
        assert torch.allclose(COMBINE[name](R[[2, 0, 1]]), COMBINE[name](R))


def test_settings() -> None:
    assert inspect.signature(ens.mean_var).parameters["coef"].default == 0.1
    assert inspect.signature(ens.soft_min).parameters["temperature"].default == 0.3


def test_z_mean_by_hand() -> None:
    r = t([1, 3, 5, NAN], [10, 10, 40, 20])  # deviations 2 and sqrt(150) / ... of the usable ones
    first = t(-2, 0, 2) / math.sqrt(8 / 3)
    second = t(-10, -10, 20, 0) / math.sqrt(150)
    expected = torch.cat([(first + second[:3]) / 2, second[3:]])
    assert torch.allclose(ens.z_mean(r), expected)
    assert torch.allclose(ens.z_mean(r.reshape(2, 2, 2)), expected.reshape(2, 2))


def test_z_mean_forgets_positive_affine_changes() -> None:
    changed = torch.stack([3 * R[0] + 9, R[1], 0.1 * R[2] - 4])
    assert torch.allclose(ens.z_mean(changed), ens.z_mean(R))
    assert not torch.allclose(ens.z_mean(torch.stack([-R[0], R[1], R[2]])), ens.z_mean(R), atol=0.1)


def test_z_mean_of_a_member_without_spread_is_0() -> None:
    flat = t([0.1, 0.1, 0.1], [1, 2, 3])
    assert torch.allclose(ens.z_mean(flat), t(-1, 0, 1) / math.sqrt(2 / 3) / 2)
    assert ens.z_mean(flat[:1]).tolist() == [0, 0, 0]
    lost = t([NAN, NAN, NAN], [1, 2, 3])
    assert torch.allclose(ens.z_mean(lost), t(-1, 0, 1) / math.sqrt(2 / 3))
    assert ens.z_mean(lost[:1]).isnan().all()


def test_z_mean_has_a_gradient_that_leaves_the_statistics_out() -> None:
    r = R.clone().requires_grad_()
    grad = torch.autograd.grad(ens.z_mean(r)[1], r)[0]
    assert torch.allclose(grad[:, 1], 1 / R.std(1, unbiased=False) / 3)
    assert grad[:, [0, 2]].abs().sum() == 0


def test_stated_deviations_and_weights_carry_no_gradient() -> None:
    std = t([1, 1, 1], [2, 2, 2], [3, 3, 3]).requires_grad_()
    assert not ens.most_confident(R, std).requires_grad


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ens.soft_min(R, temperature=0.0), "temperature"),
        (lambda: ens.soft_min(R, temperature=math.inf), "temperature"),
        (lambda: ens.robust(R, R[0], weight=1.1), "weight"),
        (lambda: ens.robust(R, R[0, :1], weight=0.1), "share one shape"),
        (lambda: ens.most_confident(R, R[:1]), "share one shape"),
        (lambda: ens.most_confident(R, R), "std must be"),
        (lambda: ens.ensemble_mean(torch.tensor(1.0)), "K first"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
