"""Log-ratios: hand-made values, mixtures of references, weights, discounts, masks, and what carries a gradient."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.log_ratio import log_ratio, mean_log_ratio, token_log_ratio

F64 = torch.float64
ALL = [token_log_ratio, log_ratio, mean_log_ratio]
LOGP = torch.tensor([[-1.0, -2.5, -0.5], [-3.0, -0.25, -1.5]], dtype=F64)
REF = torch.tensor([[-1.5, -2.0, -1.25], [-2.0, -0.75, -1.0]], dtype=F64)
PAST = torch.tensor([[-0.5, -1.0, -0.25], [-1.0, -2.0, -3.0]], dtype=F64)


def test_values_by_hand() -> None:
    assert token_log_ratio(LOGP, REF).tolist() == [[0.5, -0.5, 0.75], [-1.0, 0.5, -0.5]]
    assert log_ratio(LOGP, REF).tolist() == [0.75, -1.0]
    assert mean_log_ratio(LOGP, REF).tolist() == pytest.approx([0.25, -1 / 3])


def test_without_a_reference_it_is_the_log_prob() -> None:
    assert torch.equal(token_log_ratio(LOGP), LOGP)
    assert log_ratio(LOGP).tolist() == [-4.0, -4.75]
    assert mean_log_ratio(LOGP).tolist() == pytest.approx([-4 / 3, -4.75 / 3])


def test_one_reference_or_a_list_of_one() -> None:
    assert torch.equal(log_ratio(LOGP, REF), log_ratio(LOGP, [REF]))
    assert torch.equal(log_ratio(LOGP, REF), log_ratio(LOGP, (REF, PAST), coef=(1, 0)))
    assert torch.allclose(log_ratio(LOGP, REF), log_ratio(LOGP, (REF, REF, REF), coef=(0.5, 2, 1)))


def test_coefficients_are_renormalised() -> None:
    a = log_ratio(LOGP, (REF, PAST), coef=(0.2, 0.4))
    assert torch.allclose(a, log_ratio(LOGP, (REF, PAST), coef=(1 / 3, 2 / 3)))
    assert a.tolist() == pytest.approx([-4 + 4.75 / 3 + 2 * 1.75 / 3, -4.75 + 3.75 / 3 + 2 * 6 / 3])


def test_references_weigh_the_same_by_default() -> None:
    assert log_ratio(LOGP, (REF, PAST)).tolist() == pytest.approx([-4 + 4.75 / 2 + 1.75 / 2, -4.75 + 3.75 / 2 + 3.0])


@pytest.mark.parametrize("loss", ALL)
def test_mask_selects(loss) -> None:
    mask = torch.tensor([[1, 0, 1], [0, 0, 0]])
    holes = [torch.where(mask.bool(), x, bad) for x, bad in ((LOGP, math.nan), (REF, -math.inf), (PAST, math.inf))]
    logp = holes[0].requires_grad_()
    out = loss(logp, holes[1], mask=mask, weight=holes[2])
    (grad,) = torch.autograd.grad(out.sum(), logp)
    assert torch.isfinite(out).all() and torch.isfinite(grad).all()
    assert (grad[mask == 0] == 0).all() and (grad[mask == 1] != 0).all()
    total = 0.5 * -0.5 + 0.75 * -0.25
    expected = {token_log_ratio: [-0.25, 0.0, -0.1875], log_ratio: total, mean_log_ratio: total / 2}[loss]
    assert out[0].tolist() == pytest.approx(expected)
    assert (out[1] == 0).all()


def test_the_mean_divides_by_entries_and_not_by_weights() -> None:
    weight = torch.tensor([[2.0, 0.0, -1.0], [0.5, 4.0, 1.0]], dtype=F64)
    assert log_ratio(LOGP, REF, weight=weight).tolist() == pytest.approx([0.25, 1.0])
    assert mean_log_ratio(LOGP, REF, weight=weight).tolist() == pytest.approx([0.25 / 3, 1 / 3])


def test_discount_starts_at_one_and_counts_positions() -> None:
    assert token_log_ratio(LOGP, REF, discount=0.5).tolist() == [[0.5, -0.25, 0.1875], [-1.0, 0.25, -0.125]]
    late = torch.tensor([[0, 0, 1], [0, 1, 1]])
    assert log_ratio(LOGP, REF, mask=late, discount=0.5).tolist() == [0.1875, 0.125]


@pytest.mark.parametrize("loss", ALL)
def test_one_value_per_item_has_nothing_to_reduce(loss) -> None:
    assert loss(LOGP[0], REF[0]).tolist() == [0.5, -0.5, 0.75]
    mask, weight = torch.tensor([1, 0, 1]), torch.tensor([3.0, 1.0, 2.0])
    assert loss(LOGP[0], REF[0], mask=mask, weight=weight).tolist() == [1.5, 0.0, 1.5]


def test_a_constant_per_prompt_cancels_in_a_pair_of_sums() -> None:
    shift = torch.tensor([[7.0], [-3.0]], dtype=F64)
    h = log_ratio(LOGP, REF) - log_ratio(PAST, REF)
    moved = log_ratio(LOGP + shift, REF) - log_ratio(PAST + shift, REF)
    assert torch.allclose(h, moved)


def test_only_the_policy_learns() -> None:
    inputs = [x.clone().requires_grad_() for x in (LOGP, REF, PAST)]
    out = log_ratio(inputs[0], (inputs[1],), weight=inputs[2])
    grads = torch.autograd.grad(out.sum(), inputs, allow_unused=True)
    assert torch.equal(grads[0], PAST) and grads[1] is None and grads[2] is None


@pytest.mark.parametrize("loss", ALL)
def test_gradient_matches_finite_differences(loss) -> None:
    logp = LOGP.clone().requires_grad_()
    call = lambda x: loss(x, (REF, PAST), coef=(1, 2), mask=torch.tensor([[1, 0, 1], [1, 1, 1]]), discount=0.9)  # noqa: E731
    assert torch.autograd.gradcheck(call, logp)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_it_is_subtracted(dtype: torch.dtype) -> None:
    logp, ref = torch.tensor([[1e4, -1e4]], dtype=dtype), torch.tensor([[-1e4, 1e4]], dtype=dtype)
    out = token_log_ratio(logp, ref)
    assert out.dtype == torch.float32 and torch.equal(out, logp.float() - ref.float())
    assert log_ratio(torch.full((1, 9), 6e4, dtype=dtype)).isfinite().all()


def test_order_of_items_and_of_steps() -> None:
    rows, steps = torch.tensor([1, 0]), torch.tensor([2, 0, 1])
    assert torch.equal(log_ratio(LOGP[rows], REF[rows]), log_ratio(LOGP, REF)[rows])
    assert torch.allclose(mean_log_ratio(LOGP[:, steps], REF[:, steps]), mean_log_ratio(LOGP, REF))


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("floating", {"logp": torch.ones(2, 3, dtype=torch.long)}),
        (r"refs\[1\] must be of a floating", {"refs": (REF, REF.long())}),
        (r"refs\[1\] \(2, 2\)", {"refs": (REF, REF[:, :2])}),
        (r"\(B,\) or \(B, T\)", {"logp": LOGP[None], "refs": ()}),
        (r"\(B,\) or \(B, T\)", {"logp": LOGP.sum(), "refs": ()}),
        ("2 coefficients for 1 references", {"coef": (0.5, 0.5)}),
        ("positive sum", {"refs": (REF, PAST), "coef": (1.0, -1.0)}),
        ("positive sum", {"refs": (REF, PAST), "coef": (0.5, -1.0)}),
        ("positive sum", {"refs": (REF, PAST), "coef": (math.nan, 1.0)}),
        ("mask has shape", {"mask": torch.ones(2)}),
        ("no valid entry", {"mask": torch.zeros(2, 3)}),
        (r"weight \(2, 1\)", {"weight": torch.ones(2, 1)}),
        ("discount must be in", {"discount": 0.0}),
        ("discount must be in", {"discount": 1.01}),
        ("one value per step", {"logp": LOGP[0], "refs": REF[0], "discount": 0.9}),
    ],
)
def test_bad_input_is_refused(said: str, change: dict) -> None:
    with pytest.raises(ValueError, match=said):
        log_ratio(**{"logp": LOGP, "refs": REF, **change})
