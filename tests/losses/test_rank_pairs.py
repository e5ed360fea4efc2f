from __future__ import annotations

import math
from functools import partial
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffalign.losses import preference
from diffalign.losses.rank_pairs import dcg_weight, ordered_pairs, pairwise_mean, pairwise_sum, rank

F64 = torch.float64
SCORES, LABELS = torch.tensor([[0.3, -0.5, 1.2]], dtype=F64), torch.tensor([[1.0, 0.4, 0.0]], dtype=F64)
LOSSES = [pairwise_sum, pairwise_mean]


def dcg(scores: Tensor, labels: Tensor) -> Tensor:
    return pairwise_sum(scores, labels, weight=dcg_weight(labels, rank(scores, labels)))


def test_golden_values() -> None:
    assert pairwise_sum(SCORES, LABELS).item() == pytest.approx(3.4800405700661314, abs=1e-12)
    assert pairwise_mean(SCORES, LABELS).item() == pytest.approx(3.4800405700661314 / 3, abs=1e-12)
    scaled = pairwise_sum(SCORES, LABELS, scale=torch.tensor([[2.0, 3.0, 1.0]]))
    assert scaled.item() == pytest.approx(7.242956588016192, abs=1e-12)


def test_golden_weights_by_labels_and_by_scores() -> None:
    by_labels = dcg_weight(LABELS, rank(LABELS))
    pairs = [by_labels[0, 0, 1].item(), by_labels[0, 0, 2].item(), by_labels[0, 1, 2].item()]
    assert pairs == pytest.approx([0.36233196946835394, 0.7213475204444817, 0.06035239440465183], abs=1e-7)
    by_scores = dcg_weight(LABELS, rank(SCORES, LABELS))
    pairs = [by_scores[0, 0, 1].item(), by_scores[0, 0, 2].item(), by_scores[0, 1, 2].item()]
    assert pairs == pytest.approx([0.1285393117777038, 0.5324558142621261, 0.23047623919842394], abs=1e-7)
    assert pairwise_sum(SCORES, LABELS, weight=by_labels).item() == pytest.approx(1.142490264300947, abs=1e-7)
    assert dcg(SCORES, LABELS).item() == pytest.approx(1.1390409208765453, abs=1e-7)


def test_rankdpos_worked_example() -> None:
    phi = torch.tensor([[14.0, 10.0, 5.0, 1.0]], dtype=F64) / 15
    weight = dcg_weight(phi, rank(phi))
    first = torch.tensor([0.17160, 0.46870, 0.70833, 0.06186, 0.15604, 0.02127], dtype=F64)
    i, j = torch.triu_indices(4, 4, 1)
    assert torch.allclose(weight[0, i, j], first, atol=5e-6)
    assert weight[0, i, j].sum().item() == pytest.approx(1.587800, abs=5e-7)
    at_reference = pairwise_sum(torch.zeros(1, 4, dtype=F64), phi, weight=weight)
    assert at_reference.item() == pytest.approx(1.100579, abs=5e-7)


def test_two_samples_are_the_pair_loss() -> None:
    s = torch.randn(9, 2, dtype=F64)
    labels = torch.tensor([[1.0, 0.0]], dtype=F64).expand(9, 2)
    dpo = -logsigmoid(s[:, 0] - s[:, 1])
    for loss in LOSSES:
        assert torch.allclose(loss(s, labels), dpo, atol=1e-12)
    assert torch.allclose(dcg(s, labels), 0.5324558142621261 * dpo, atol=1e-7)  # 1 / ln 2 - 1 / ln 3


def test_links_take_the_place_of_the_logistic_one() -> None:
    loss = pairwise_sum(SCORES, LABELS, link=partial(preference.square, target=0.5))
    assert loss.item() == pytest.approx((0.8 - 0.5) ** 2 + (-0.9 - 0.5) ** 2 + (-1.7 - 0.5) ** 2, abs=1e-12)
    assert pairwise_mean(SCORES, LABELS, link=preference.linear).item() == pytest.approx(0.6, abs=1e-12)


def test_ranks_count_from_the_largest_and_ties_share_them() -> None:
    values = torch.tensor([[3.0, 7.0, 3.0, 1.0], [2.0, math.nan, 5.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    assert rank(values, mask=mask).tolist() == [[2.5, 1, 2.5, 4], [2, 0, 1, 0]]
    ties = torch.tensor([[0.0, 0.0, 1.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    assert rank(values, ties, mask).tolist() == [[3, 1, 2, 4], [2, 0, 1, 0]]


def test_ranks_by_scores_need_the_labels_at_the_start_or_nothing_would_ever_move() -> None:
    s = torch.zeros(1, 3, dtype=F64, requires_grad=True)
    assert dcg_weight(LABELS, rank(s)).abs().max() == 0
    dcg(s, LABELS).sum().backward()
    assert s.grad[0, 0] < 0 < s.grad[0, 2]


def test_ties_and_unscored_samples_are_no_pairs() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0, math.nan, math.inf]])
    expected = torch.zeros(1, 5, 5, dtype=torch.bool)
    expected[0, 0, 2] = expected[0, 1, 2] = True
    assert torch.equal(ordered_pairs(labels), expected)
    only = ordered_pairs(labels, torch.tensor([[1, 0, 1, 1, 1]]))
    assert only.nonzero().tolist() == [[0, 0, 2]]
    equal = torch.full((1, 3), 0.5)
    assert dcg_weight(equal, rank(SCORES)).abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_groups_without_a_comparison_are_zero_and_teach_nothing(loss) -> None:
    s = torch.randn(3, 2, dtype=F64, requires_grad=True)
    labels = torch.tensor([[1.0, 1.0], [1.0, math.nan], [1.0, 0.0]])
    value = loss(s, labels, mask=torch.tensor([[1, 1], [1, 1], [0, 1]]))
    value.sum().backward()
    assert value.tolist() == [0, 0, 0] and s.grad.abs().max() == 0
    assert loss(s[:, :1], labels[:, :1]).tolist() == [0, 0, 0]


def test_permuting_the_candidates_changes_no_loss() -> None:
    scores, labels = torch.randn(1, 4, dtype=F64), torch.tensor([[0.3, 1.0, 0.3, 0.0]], dtype=F64)
    scale = torch.rand(1, 4, dtype=F64) + 0.5
    by_label = partial(lambda s, y: pairwise_sum(s, y, weight=dcg_weight(y, rank(y))))
    plain = (pairwise_mean(scores, labels, scale=scale), dcg(scores, labels), by_label(scores, labels))
    for order in permutations(range(4)):
        p = list(order)
        s, y = scores[:, p], labels[:, p]
        moved = (pairwise_mean(s, y, scale=scale[:, p]), dcg(s, y), by_label(s, y))
        assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(plain, moved, strict=True))


def test_padding_reaches_neither_value_nor_gradient() -> None:
    s = torch.cat([SCORES, torch.tensor([[math.nan, math.inf]], dtype=F64)], 1).requires_grad_()
    labels = torch.cat([LABELS, torch.tensor([[math.nan, 3.0]], dtype=F64)], 1)
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    weight = torch.full((1, 5, 5), math.nan, dtype=F64)
    weight[:, :3, :3] = 1
    value = pairwise_sum(s, labels, weight=weight, mask=mask, scale=torch.tensor([[1, 1, 1, math.nan, math.nan]]))
    value.sum().backward()
    assert value.item() == pytest.approx(3.4800405700661314, abs=1e-12)
    assert s.grad.isfinite().all() and s.grad[0, 3:].tolist() == [0, 0]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_right_and_reach_the_scores_alone(loss) -> None:
    s = torch.randn(2, 3, dtype=F64, requires_grad=True)
    labels = torch.rand(2, 3, dtype=F64, requires_grad=True)
    weight, scale = (torch.rand(shape, dtype=F64, requires_grad=True) for shape in ((2, 3, 3), (2, 3)))
    assert torch.autograd.gradcheck(lambda x: loss(x, labels.detach(), weight=weight.detach(), scale=scale.detach()), s)
    loss(s, labels, weight=weight, scale=scale).sum().backward()
    assert labels.grad is None and weight.grad is None and scale.grad is None
    assert s.grad.abs().min() > 0


def test_weights_and_ranks_carry_no_gradient() -> None:
    s, labels = torch.randn(1, 3, dtype=F64, requires_grad=True), torch.rand(1, 3, dtype=F64, requires_grad=True)
    ranks = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    assert not rank(s, labels).requires_grad
    assert not dcg_weight(labels, ranks).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [50.0, 1e4])
def test_extreme_scores_stay_finite(dtype: torch.dtype, size: float) -> None:
    s = torch.tensor([[size, -size, 0.0]], dtype=dtype, requires_grad=True)
    for labels in (LABELS, LABELS.flip(1)):
        value = dcg(s, labels.to(dtype)) + pairwise_mean(s, labels.to(dtype))
        value.sum().backward()
        assert value.dtype == torch.float32 and value.isfinite().all() and s.grad.isfinite().all()


def test_integer_grades_are_labels_too() -> None:
    assert dcg(SCORES, torch.tensor([[2, 1, 0]])).item() > 0
    assert pairwise_sum(SCORES, torch.tensor([[3, 2, 1]])).item() == pytest.approx(3.4800405700661314, abs=1e-12)


def test_bad_input_is_refused() -> None:
    for loss in LOSSES:
        with pytest.raises(ValueError, match=r"labels \(1, 2\)"):
            loss(SCORES, LABELS[:, :2])
        with pytest.raises(ValueError, match="scores must be of a floating"):
            loss(SCORES.long(), LABELS)
        with pytest.raises(ValueError, match="no valid entry"):
            loss(SCORES, LABELS, mask=torch.zeros(1, 3))
        with pytest.raises(ValueError, match="weight"):
            loss(SCORES, LABELS, weight=torch.ones(1, 3))
        with pytest.raises(ValueError, match="scale"):
            loss(SCORES, LABELS, scale=torch.ones(1, 2))
        with pytest.raises(ValueError, match=r"\(B, G\)"):
            loss(SCORES[0], LABELS[0])
    with pytest.raises(ValueError, match="overflows"):
        dcg_weight(torch.tensor([[200.0, 0.0]]), torch.tensor([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="ranks"):
        dcg_weight(LABELS, torch.ones(1, 2))
    with pytest.raises(ValueError, match="ties"):
        rank(SCORES, LABELS[:, :2])
    with pytest.raises(ValueError, match=r"\(B, G\)"):
        rank(SCORES[0])
    with pytest.raises(ValueError, match="no valid entry"):
        ordered_pairs(LABELS, torch.zeros(1, 3))
