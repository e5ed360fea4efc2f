from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffalign.losses import unpaired

F64 = torch.float64
LOSSES: list[Callable[..., Tensor]] = [unpaired.logistic, unpaired.kto, unpaired.linear]
LIKED = torch.tensor([True, False])


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


@pytest.mark.parametrize(
    ("loss", "liked", "disliked"),
    [
        (unpaired.logistic, 0.4740769841801067, 0.9740769841801067),
        (unpaired.kto, 0.3775406687981454, 0.6224593312018546),
        (unpaired.linear, -0.5, 0.5),
        (unpaired.risk_seeking, -0.9740769841801067, -0.4740769841801067),
    ],
)
def test_golden_values_half_above_the_shift(loss, liked: float, disliked: float) -> None:
    u = tensor(0.7, 0.7)
    assert loss(u, LIKED, shift=0.2).tolist() == pytest.approx([liked, disliked], abs=1e-12)
    assert loss(u - 0.2, LIKED).tolist() == pytest.approx([liked, disliked], abs=1e-12)
    weighted = loss(u, LIKED, shift=0.2, weight_d=2.0, weight_u=3.0)
    assert weighted.tolist() == pytest.approx([2 * liked, 3 * disliked], abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_adding_one_constant_to_scores_and_shift_changes_nothing(loss) -> None:
    u = torch.randn(6, dtype=F64)
    liked = torch.tensor([True, False, True, True, False, False])
    assert torch.allclose(loss(u + 3, liked, shift=3.3), loss(u, liked, shift=0.3), atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_liked_samples_rise_and_disliked_fall(loss) -> None:
    u = torch.zeros(2, dtype=F64, requires_grad=True)
    loss(u, LIKED).sum().backward()
    assert u.grad[0] < 0 < u.grad[1]


def test_bco_of_both_bounds_dpo_for_every_shift() -> None:
    winner, loser = torch.randn(2, 50, dtype=F64) * 3
    for shift in (-4.0, -0.5, 0.0, 2.0):
        both = torch.stack([winner, loser])
        liked = torch.tensor([[True], [False]]).expand(2, 50)
        assert (unpaired.logistic(both, liked, shift=shift).sum(0) >= -logsigmoid(winner - loser)).all()


def test_balanced_pair_at_the_shift_is_two_log_two_and_kto_a_half() -> None:
    u = tensor(1.3, 1.3)
    assert unpaired.logistic(u, LIKED, shift=1.3).sum().item() == pytest.approx(2 * math.log(2), abs=1e-12)
    assert unpaired.kto(u, LIKED, shift=1.3).tolist() == [0.5, 0.5]


def test_kto_is_bounded_and_the_linear_form_is_not() -> None:
    u = tensor(-1e4, 1e4)
    assert unpaired.kto(u, LIKED).tolist() == [1, 1]
    assert unpaired.kto(-u, LIKED).tolist() == [0, 0]
    assert unpaired.linear(-u, LIKED).tolist() == [-1e4, -1e4]


def test_a_constant_on_all_scores_moves_pmpos_form_by_the_excess_of_one_weight() -> None:
    u = torch.randn(2, dtype=F64)
    for alpha, moved in ((0.5, 0.0), (0.8, -0.6)):  # (1 - 2 alpha) c with c = 1
        weights = {"weight_d": alpha, "weight_u": 1 - alpha}
        change = unpaired.linear(u + 1, LIKED, **weights).sum() - unpaired.linear(u, LIKED, **weights).sum()
        assert change.item() == pytest.approx(moved, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_right_and_reach_the_scores_alone(loss) -> None:
    liked = torch.tensor([[True, False, True], [False, True, False]])
    rows = {name: torch.rand(2, dtype=F64, requires_grad=True) for name in ("shift", "weight_d", "weight_u")}
    u = torch.randn(2, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, liked, **rows), u)
    loss(u, liked, **rows).sum().backward()
    assert u.grad.abs().min() > 0
    assert all(x.grad is None for x in rows.values())


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_and_entries_are_told_apart(loss) -> None:
    u, liked = torch.randn(2, 2, dtype=F64), torch.tensor([[True, False], [True, False]])
    by_row = loss(u, liked, shift=tensor(0.5, -1.0), weight_d=tensor(2.0, 3.0), weight_u=tensor(5.0, 7.0))
    for i, (shift, up, down) in enumerate([(0.5, 2, 5), (-1.0, 3, 7)]):
        assert torch.allclose(by_row[i], loss(u[i], liked[i], shift=shift, weight_d=up, weight_u=down), atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [50.0, 1e4])
def test_extreme_scores_stay_finite(loss, dtype: torch.dtype, size: float) -> None:
    u = torch.tensor([size, size, -size, -size], dtype=dtype, requires_grad=True)
    value = loss(u, torch.tensor([True, False, True, False]), shift=0.1)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert value.isfinite().all() and u.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_padding_reaches_neither_value_nor_gradient(loss) -> None:
    u = torch.tensor([[0.5, math.nan], [math.inf, -0.3]], dtype=F64, requires_grad=True)
    mask, liked = torch.tensor([[1, 0], [0, 1]]), torch.tensor([[True, True], [False, False]])
    value = loss(u, liked, shift=0.2, mask=mask)
    value.sum().backward()
    assert value[0, 1] == value[1, 0] == u.grad[0, 1] == u.grad[1, 0] == 0
    alone = loss(tensor(0.5, -0.3), LIKED, shift=0.2)
    assert torch.allclose(value[mask.bool()], alone, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_bad_input_is_refused(loss) -> None:
    u = torch.zeros(2)
    with pytest.raises(ValueError, match="bool"):
        loss(u, torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="floating"):
        loss(torch.zeros(2, dtype=torch.int64), LIKED)
    with pytest.raises(ValueError, match="shape"):
        loss(torch.zeros(3), LIKED)
    with pytest.raises(ValueError, match="no valid entry"):
        loss(u, LIKED, mask=torch.zeros(2))
    with pytest.raises(ValueError, match="weight_d"):
        loss(u, LIKED, weight_d=-1.0)
    with pytest.raises(ValueError, match="weight_u"):
        loss(u, LIKED, weight_u=torch.tensor([1.0, -1.0]))


def test_ktos_shift_is_the_mean_held_above_zero() -> None:
    u = torch.tensor([2.0, -1.0, 4.0, math.nan], requires_grad=True)
    mask = torch.tensor([1, 1, 0, 0])
    assert unpaired.kto_shift(u, mask).item() == 0.5
    assert unpaired.kto_shift(-u, mask).item() == 0
    assert unpaired.kto_shift(u[:3]).item() == pytest.approx(5 / 3)
    assert not unpaired.kto_shift(u, mask).requires_grad
    with pytest.raises(ValueError, match="no valid entry"):
        unpaired.kto_shift(u, torch.zeros(4))


def test_class_means_count_alike_however_many_samples_they_have() -> None:
    u = torch.tensor([1.0, 2.0, 6.0, 10.0, math.nan], requires_grad=True)
    liked = torch.tensor([True, True, True, False, False])
    mask = torch.tensor([1, 1, 1, 1, 0])
    assert unpaired.class_mean_shift(u, liked, mask).item() == 6.5  # (3 + 10) / 2
    assert not unpaired.class_mean_shift(u, liked, mask).requires_grad
    assert unpaired.class_mean_shift(u[:4], liked[:4]).item() == 6.5
    assert unpaired.class_mean_shift(u[:3], liked[:3]).item() == 3  # one class alone
    assert unpaired.class_mean_shift(u[3:4], liked[3:4]).item() == 10
    with pytest.raises(ValueError, match="mask"):
        unpaired.class_mean_shift(u, liked, torch.ones(4))
    with pytest.raises(ValueError, match="bool"):
        unpaired.class_mean_shift(u, liked.float())


def test_density_ratio_is_the_odds_within_bounds() -> None:
    prob = torch.tensor([0.0, 0.2, 0.6, 0.8, 0.95, 1.0], dtype=F64, requires_grad=True)
    ratio = unpaired.density_ratio(prob)
    assert ratio.tolist() == pytest.approx([0.5, 0.5, 1.5, 4.0, 10.0, 10.0], abs=1e-12)
    assert not ratio.requires_grad
    assert unpaired.density_ratio(prob, low=0.3, high=3.0).tolist() == pytest.approx([0.3, 0.3, 1.5, 3, 3, 3])
    assert unpaired.density_ratio(prob, low=2.0, high=2.0).tolist() == [2] * 6


def test_density_ratio_refuses_what_is_no_probability() -> None:
    for bad in (1.1, -0.1, math.nan):
        with pytest.raises(ValueError, match="prob"):
            unpaired.density_ratio(torch.tensor([0.5, bad]))
    with pytest.raises(ValueError, match="floating"):
        unpaired.density_ratio(torch.tensor([1]))
    with pytest.raises(ValueError, match="low must not exceed"):
        unpaired.density_ratio(torch.tensor([0.5]), low=2, high=1)
    with pytest.raises(ValueError, match="low"):
        unpaired.density_ratio(torch.tensor([0.5]), low=0.0)
