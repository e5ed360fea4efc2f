"""Each transform by hand, its identities, what NaN does, and which inputs carry a gradient."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from diffalign.losses import group_advantage
from diffalign.losses import reward_shaping as shape
from diffalign.losses.common import empty_moments, update_moments

F64 = torch.float64
NAN = math.nan


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def sig(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def close(x: torch.Tensor, *values: float) -> bool:
    return torch.allclose(x, t(*values), atol=1e-12, equal_nan=True)


REF = t([0.0, 1.0, 5.0], [2.0, 2.0, NAN])
STATS = update_moments(empty_moments(), t(1, 2, 6))  # mean 3, variance 14 / 3

TRANSFORMS = {
    "affine": partial(shape.affine, scale=2.0, shift=-1.0),
    "center": lambda r: shape.center(r, REF),
    "standardize": lambda r: shape.standardize(r, STATS, bound=1.5),
    "sigmoid_ref": lambda r: shape.sigmoid_ref(r, REF, k=0.7),
    "logsigmoid_ref": lambda r: shape.logsigmoid_ref(r, REF),
    "logit_winrate": lambda r: shape.logit_winrate(r),
    "clipped_prob": lambda r: shape.clipped_prob(r, prior=0.25),
    "deadband": lambda r: shape.deadband(r, low=0.35, high=0.8),
    "threshold": shape.threshold,
    "count_discount": lambda r: shape.count_discount(r, torch.full_like(r, 2.0)),
    "distance_decay": lambda r: shape.distance_decay(r, limit=0.9),
}


@pytest.fixture(params=TRANSFORMS.values(), ids=TRANSFORMS)
def transform(request):
    return request.param


def test_gradients(transform) -> None:
    r = t([0.3, 0.41, 0.62], [0.77, 0.95, 0.05]).requires_grad_()
    assert torch.autograd.gradcheck(transform, (r,))
    assert torch.autograd.grad(transform(r).sum(), r)[0].abs().sum() > 0


def test_what_could_not_be_scored_stays_so_and_touches_nothing_else(transform) -> None:
    r = t([0.3, NAN, 0.6], [0.7, 0.9, NAN])
    filled = transform(r.nan_to_num(nan=0.5))
    assert torch.equal(transform(r).isnan(), r.isnan())
    assert torch.equal(transform(r)[~r.isnan()], filled[~r.isnan()])


def test_half_precision_and_integers_are_widened(transform) -> None:
    r = t([0.25, 0.5], [0.75, 1.0])
    assert transform(r.bfloat16()).dtype == torch.float32
    assert torch.allclose(transform(r.half()).double(), transform(r), atol=1e-5)
    assert transform(torch.ones(2, 2, dtype=torch.long)).dtype == torch.float32


def test_rows_and_groups_agree(transform) -> None:
    r = t([0.3, 0.4, 0.6], [0.7, 0.9, 0.05])
    assert torch.allclose(transform(r)[:, 1], transform(r[:, 1]))


def test_affine_by_hand_and_as_a_no_op() -> None:
    assert close(shape.affine(t(1, 2.5), scale=2, shift=-3), -1, 2)
    assert close(shape.affine(t(1, 2.5)), 1, 2.5)
    r = t([1.0, 2.0, 4.0])
    assert torch.allclose(group_advantage(shape.affine(r, shift=7.0)), group_advantage(r))


def test_a_shift_moves_a_discounted_return_as_stated() -> None:
    r, gamma, b = t(3, 1, 4, 1), 0.8, 0.5
    value = sum(gamma**i * (x - y) for i, (x, y) in enumerate(zip(shape.affine(r, shift=b), r, strict=True)))
    assert value.item() == pytest.approx(b * (1 - gamma**4) / (1 - gamma))


def test_center() -> None:
    assert close(shape.center(t(3, 3), REF), 1, 1)


def test_standardize() -> None:
    std = math.sqrt(14 / 3)
    assert close(shape.standardize(t(1, 6), STATS), -2 / std, 3 / std)
    assert close(shape.standardize(t(1, 6, -2), STATS, bound=0.95), -2 / std, 0.95, -0.95)
    unit = update_moments(empty_moments(), t(-1, 1))
    assert close(shape.standardize(t(0.3, -7), unit), 0.3, -7)
    flat = update_moments(empty_moments(), t(3, 3))
    assert close(shape.standardize(t(3, 3 + 2e-8), flat), 0, 2)
    r = t(1.0, 9.0).requires_grad_()
    assert torch.autograd.grad(shape.standardize(r, STATS, bound=1.0).sum(), r)[0].tolist() == [1 / std, 0.0]
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="bound"):
            shape.standardize(r, STATS, bound=bad)
        with pytest.raises(ValueError, match="eps"):
            shape.standardize(r, STATS, eps=bad)


def test_sigmoid_ref() -> None:
    assert close(shape.sigmoid_ref(t(1, 3), REF), (sig(1) + 0.5 + sig(-4)) / 3, sig(1))
    assert close(shape.sigmoid_ref(t(2.0), t([2.0]), k=9.0), 0.5)
    assert close(shape.sigmoid_ref(t(2.5), t([2.0]), k=3.0), sig(1.5))
    r = t(0.3, 4)
    assert torch.allclose(shape.sigmoid_ref(r + 7, REF + 7), shape.sigmoid_ref(r, REF))
    x = t(1.0, 2.0).requires_grad_()  # the second at its only reference: steepest
    slope = torch.autograd.grad(shape.sigmoid_ref(x, REF, k=3.0).sum(), x)[0]
    assert slope[1].item() == pytest.approx(0.75) and 0 < slope[0] < 0.75


def test_logsigmoid_ref() -> None:
    q = 1 + 0.7 * 4  # 85 % of the way through 0, 1, 5
    assert close(shape.logsigmoid_ref(t(3, 3), REF), math.log(sig(3 - q)), math.log(sig(1)))
    assert close(shape.logsigmoid_ref(t(3, 3), REF, quantile=0.5), math.log(sig(2)), math.log(sig(1)))
    x = t(3.0, 2.0).requires_grad_()
    slope = torch.autograd.grad(shape.logsigmoid_ref(x, REF).sum(), x)[0]
    assert close(slope, sig(q - 3), 0.5)
    assert torch.isfinite(shape.logsigmoid_ref(t(1e4, -1e4), REF)).all()
    both = shape.logsigmoid_ref(x, REF) + shape.logsigmoid_ref(2 * x, REF)
    assert torch.allclose(both.exp(), shape.logsigmoid_ref(x, REF).exp() * shape.logsigmoid_ref(2 * x, REF).exp())


def test_a_reference_inside_a_sigmoid_survives_group_centring() -> None:
    r, ref = t([0.0, 1.0, 3.0]), t([0.5])
    adv = [group_advantage(f(r, ref + s)) for s in (0.0, 2.0) for f in (shape.center, shape.logsigmoid_ref)]
    assert torch.allclose(adv[0], adv[2]) and not torch.allclose(adv[1], adv[3], atol=1e-2)


def test_logit_winrate() -> None:
    assert close(shape.logit_winrate(t(0.5, 0.8)), 0, math.log(4))
    assert close(shape.logit_winrate(t(0, 1), eps=0.01), -math.log(99), math.log(99))
    assert shape.logit_winrate(t(1.0)).item() == pytest.approx(math.log(1e6), rel=1e-6)
    r, base = 2.3, 0.9
    assert shape.logit_winrate(t(sig(r - base))).item() == pytest.approx(r - base)
    assert close(shape.sigmoid_ref(t(r), t([base])).logit(), r - base)  # PAR with one reference is its sigmoid


def test_clipped_prob() -> None:
    assert close(shape.clipped_prob(t(0.1, 0.25, 0.9), prior=0.25), 0, 0, 0.65)
    q = t(0.1, 0.2, 0.3, 0.4)
    chi2 = ((q - 0.25) ** 2 / 0.25).sum()
    assert (q * (q - 0.25)).sum().item() == pytest.approx(chi2.item() / 4)
    assert close(shape.clipped_prob(q, prior=q.flip(0)), 0, 0, 0.1, 0.3)


def test_deadband() -> None:
    assert close(shape.deadband(t(0.2, 0.3, 0.5, 0.8, 0.81), low=0.3, high=0.8), 0, 0.3, 0.5, 0.8, 1)
    r = t(0, 0.4, 1)
    assert torch.equal(shape.deadband(r, low=0, high=1), r)
    assert close(shape.deadband(t(0.49, 0.51), low=0.5, high=0.5), 0, 1)


def test_threshold() -> None:
    assert close(shape.threshold(t(-0.6, -0.5, -0.4, 2)), 0, 0, -0.4, 2)
    assert close(shape.threshold(t(0.5, 1.5), tau=1.0), 0, 1.5)


def test_count_discount() -> None:
    assert close(shape.count_discount(t(8, 8, 8), t(1, 2, 4)), 8, 1, 0.125)
    assert close(shape.count_discount(t(8, 9), t(2, 3), power=1.0), 4, 3)
    assert close(shape.count_discount(t(8, 9), t(2, 3), power=0.0), 8, 9)


def test_distance_decay() -> None:
    assert close(shape.distance_decay(t(0, 1, 4, 5), limit=4.0), 1, 0.75, 0, 0)


def test_references_carry_no_gradient() -> None:
    ref, r = REF.clone().requires_grad_(), t(1.0, 2.0)
    for f in (shape.center, shape.sigmoid_ref, shape.logsigmoid_ref):
        assert not f(r, ref).requires_grad
    assert not shape.count_discount(r, torch.ones(2, requires_grad=True)).requires_grad
    assert not shape.clipped_prob(r / 2, prior=t(0.1, 0.2).requires_grad_()).requires_grad


def test_a_prompt_without_a_reference_is_not_scored() -> None:
    ref = t([NAN, math.inf], [1.0, -math.inf])
    for f in (shape.center, shape.sigmoid_ref, shape.logsigmoid_ref):
        assert f(t(1, 2), ref).isnan().tolist() == [True, False]
    assert close(shape.center(t(1, 2), ref), NAN, 1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: shape.center(t(1, 2), t([1.0])), r"\(B, M\).*\(2,\) and \(1, 1\)"),
        (lambda: shape.center(t(1.0), t(1.0)), "references"),
        (lambda: shape.center(t([[1.0]]), t([1.0])), "references"),
        (lambda: shape.center(t(1, 2), torch.zeros(2, 0)), "M >= 1"),
        (lambda: shape.sigmoid_ref(t(1, 2), REF, k=0.0), "k must be positive"),
        (lambda: shape.logsigmoid_ref(t(1, 2), REF, quantile=1.2), "quantile"),
        (lambda: shape.logit_winrate(t(1.2)), "win_rate"),
        (lambda: shape.logit_winrate(t(-0.1)), "win_rate"),
        (lambda: shape.logit_winrate(t(0.5), eps=0.0), "eps"),
        (lambda: shape.clipped_prob(t(1.2), prior=0.1), "q must be"),
        (lambda: shape.clipped_prob(t(0.2), prior=-0.1), "prior"),
        (lambda: shape.deadband(t(0.5), low=0.6, high=0.5), "low must not exceed high, got 0.6 and 0.5"),
        (lambda: shape.count_discount(t(1, 1), t(1, 0)), "count must be positive"),
        (lambda: shape.count_discount(t(1, 1), t(1.0)), "share one shape"),
        (lambda: shape.count_discount(t(1.0), t(1.0), power=-1.0), "power must not be negative"),
        (lambda: shape.distance_decay(t(1.0), limit=0.0), "limit"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
