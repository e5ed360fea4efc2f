from __future__ import annotations

import pytest
import torch

from diffalign.losses import common

REDUCTIONS = [
    common.masked_mean,
    common.masked_seq_mean,
    common.masked_seq_sum,
    lambda x, m=None: common.masked_const(x, m, norm=7),
]


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.tensor([[1.0, 2.0, 30.0], [4.0, 50.0, 60.0], [70.0, 80.0, 90.0]], dtype=torch.float64)
    return x, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_values_by_hand() -> None:
    x, mask = rows()
    assert common.masked_mean(x, mask).item() == pytest.approx(7 / 3)
    assert common.masked_seq_mean(x, mask).item() == pytest.approx((1.5 + 4) / 2)  # the empty row is left out, not NaN
    assert common.masked_seq_sum(x, mask).item() == pytest.approx((3 + 4) / 2)
    assert common.masked_const(x, mask, norm=10).item() == pytest.approx(0.7)
    assert common.masked_const(x, mask, norm=0.5).item() == pytest.approx(14)
    assert common.masked_mean(x, mask * torch.tensor([[0], [1], [0]])).item() == 4
    assert common.row_mean(x, mask).tolist() == pytest.approx([1.5, 4.0, 0.0])
    assert common.row_mean(x).tolist() == pytest.approx([11.0, 38.0, 80.0])


def test_equal_lengths_make_the_means_agree() -> None:
    x = torch.randn(4, 5, dtype=torch.float64)
    assert torch.allclose(common.masked_mean(x), common.masked_seq_mean(x), atol=1e-12)
    assert torch.allclose(common.masked_mean(x), common.masked_seq_sum(x) / 5, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_masked_entries_touch_neither_value_nor_gradient(reduction, bad: float) -> None:
    x, mask = rows()
    poisoned = torch.where(mask.bool(), x, bad).requires_grad_()
    value = reduction(poisoned, mask)
    assert value.item() == reduction(x, mask).item()
    (grad,) = torch.autograd.grad(value, poisoned)
    assert torch.isfinite(grad).all() and (grad[mask == 0] == 0).all() and (grad[mask == 1] > 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_masked_is_zero_with_zero_gradient(reduction) -> None:
    x = torch.full((2, 3), float("nan"), requires_grad=True)
    value = reduction(x, torch.zeros(2, 3))
    assert value.item() == 0
    assert (torch.autograd.grad(value, x)[0] == 0).all()


def test_half_precision_is_widened_and_double_kept() -> None:
    assert common.as_float(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert common.as_float(torch.ones(2, dtype=torch.float64)).dtype == torch.float64
    assert common.masked_mean(torch.full((4096,), 0.1, dtype=torch.float16)).item() == pytest.approx(0.1, rel=1e-3)


def test_one_value_per_row_even_when_the_batch_is_square() -> None:
    value = torch.tensor([1.0, 2.0])
    expected = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    assert torch.equal(common.expand_rows(value, torch.zeros(2, 2)), expected)
    assert torch.equal(common.expand_rows(value[:, None], torch.zeros(2, 2)), expected)
    assert torch.equal(common.expand_rows(expected.T, torch.zeros(2, 2)), expected.T)


def test_one_value_may_stand_for_a_row_of_any_length_or_of_one() -> None:
    value = torch.tensor([1.0, 2.0])
    assert torch.equal(common.expand_rows(value, torch.zeros(2)), value)
    assert common.expand_rows(value[:, None], torch.zeros(2, 3)).tolist() == [[1, 1, 1], [2, 2, 2]]
    for like in (torch.zeros(()), torch.zeros(2, 1, 1)):
        with pytest.raises(ValueError, match=r"\(B,\) or \(B, T\)"):
            common.expand_rows(value, like)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2), ()])
def test_rows_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="fit"):
        common.expand_rows(torch.zeros(shape), torch.zeros(2, 2))


def test_shape_errors_say_what_was_given() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        common.masked_mean(torch.zeros(2, 3), torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        common.masked_seq_mean(torch.zeros(2))
    with pytest.raises(ValueError, match="positive"):
        common.masked_const(torch.zeros(2), norm=0)


def test_moments_over_chunks_are_moments_over_all() -> None:
    x = torch.randn(101, dtype=torch.float64) * 3 + 1e4
    state = common.empty_moments()
    for chunk in x.split([1, 50, 7, 43]):
        state = common.update_moments(state, chunk)
    assert state.n == 101
    assert state.mean.item() == pytest.approx(x.mean().item(), abs=1e-8)
    assert state.std.item() == pytest.approx(x.std(correction=0).item(), rel=1e-9)


def test_moments_leave_out_what_was_not_scored_and_do_not_change_their_input() -> None:
    first = common.update_moments(common.empty_moments(), torch.tensor([1.0, float("nan"), 3.0]))
    later = common.update_moments(first, torch.tensor([5.0, 100.0, float("nan")]), torch.tensor([1, 0, 1]))
    assert (first.n, first.mean, first.m2) == (2, 2, 2)
    assert (later.n, later.mean) == (3, 3)
    assert common.update_moments(later, torch.tensor([float("nan")])) == later
    assert common.empty_moments().std == 0
    kept = common.update_moments(first, torch.ones(2, requires_grad=True))
    assert not any(moment.requires_grad for moment in kept), "a state keeps no graph"


def test_per_row_takes_numbers_and_rows_and_keeps_the_gradient() -> None:
    like = torch.zeros(2, 3, dtype=torch.float64)
    assert common.per_row(0.5, like).shape == ()
    assert common.per_row(0.5, like).dtype == torch.float64
    row = torch.tensor([1.0, 2.0], requires_grad=True)
    assert common.per_row(row, like).tolist() == [[1, 1, 1], [2, 2, 2]]
    common.per_row(row, like).sum().backward()
    assert row.grad.tolist() == [3, 3]
    with pytest.raises(ValueError, match="fit"):
        common.per_row(torch.zeros(3), like)


def test_groups_of_other_ranks_shapes_or_without_a_sample_are_refused() -> None:
    common.check_groups(scores=torch.zeros(1, 1), labels=torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"labels \(2, 2\)"):
        common.check_groups(scores=torch.zeros(2, 3), labels=torch.zeros(2, 2))
    for shape in ((3,), (2, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"\(B, G\)"):
            common.check_groups(scores=torch.zeros(shape))
