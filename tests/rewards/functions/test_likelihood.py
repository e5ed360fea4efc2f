from __future__ import annotations

import math

import pytest
import torch

from diffalign.rewards.functions.likelihood import (
    contrast_bonus,
    expected_grade,
    likelihood_contrast,
    sensitivity_weighted,
    yes_probability,
)


def test_equal_logits_of_yes_and_no_are_a_half() -> None:
    logits = torch.tensor([[1.3, 1.3, -4.0, 7.0]])
    assert float(yes_probability(logits, [0], [1])) == pytest.approx(0.5)


def test_spellings_are_summed_on_both_sides() -> None:
    p = torch.tensor([[0.2, 0.1, 0.3, 0.15, 0.25]]).double()
    assert float(yes_probability(p.log() + 5, [0, 1], [2])) == pytest.approx(0.5)
    assert float(yes_probability(p.log() + 5, [0], [2, 3])) == pytest.approx(0.2 / 0.65)
    assert float(yes_probability(p.log() + 5, [0, 3], None)) == pytest.approx(0.35)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    answer = yes_probability(logits, [0], [1])
    assert answer.tolist() == [1.0, 0.0]
    (gradient,) = torch.autograd.grad(answer.sum(), logits)
    assert gradient.isfinite().all()
    random = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: yes_probability(z, [0, 1], [3]), random)
    assert torch.autograd.gradcheck(lambda z: expected_grade(z, [[0], [1, 4], [3]]), random)


def test_edit_r1_by_hand() -> None:
    grades = [[2], [3], [4], [5], [6], [7]]
    logits = torch.zeros(2, 8).double()
    logits[1, 2:] = torch.tensor([0, 0, 0, 1, 2, 3])
    logits[:, :2] = 9.0  # other tokens do not count
    assert expected_grade(logits, grades).tolist() == pytest.approx([0.5, 0.850416], abs=1e-6)
    doubled = expected_grade(torch.zeros(1, 3), [[0], [1, 2]])
    assert float(doubled) == pytest.approx(2 / 3)


def test_a_certain_grade_is_the_score_and_a_shift_of_all_logits_is_nothing() -> None:
    certain = torch.eye(6).double() * 1e3
    grades = [[i] for i in range(6)]
    assert expected_grade(certain, grades).tolist() == [i / 5 for i in range(6)]
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(expected_grade(logits + 7, grades), expected_grade(logits, grades), atol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda z: yes_probability(z, [], [1]),
        lambda z: yes_probability(z, [0], []),
        lambda z: yes_probability(z, [0, 1], [1]),
        lambda z: expected_grade(z, [[0]]),
        lambda z: expected_grade(z, [[0], []]),
    ],
)
def test_sides_need_tokens_of_their_own(call: object) -> None:
    with pytest.raises(ValueError, match="token ids"):
        call(torch.zeros(1, 3))  # type: ignore[operator]


def test_follow_ups_by_hand() -> None:
    positive, negative = torch.tensor([[-1.0, -3.0]]), torch.tensor([[-4.0, torch.nan, -6.0]])
    assert likelihood_contrast(positive, negative).tolist() == [3.0]


def test_r3_by_hand() -> None:
    log_prob = torch.tensor([[-1.0, -2.0, -1.0], [-3.0, -2.0, -2.0]]).double()
    masked = torch.tensor([-4.0, -5.0, -1.0]).double()
    assert sensitivity_weighted(log_prob, masked).tolist() == pytest.approx([3.0, 0.5 * -1 + 1.0 * 1])
    assert sensitivity_weighted(log_prob, masked, power=2.0).tolist() == pytest.approx([3.0, 1 - 0.25])
    same = log_prob[:1].expand(3, 3)
    assert sensitivity_weighted(same, masked).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match=r"\(G, T\)"):
        sensitivity_weighted(log_prob, masked[:2])


def test_the_weights_of_r3_carry_no_gradient() -> None:
    log_prob = torch.tensor([[-1.0, -2.0], [-3.0, -2.5]]).double().requires_grad_()
    (gradient,) = torch.autograd.grad(sensitivity_weighted(log_prob, torch.zeros(2).double()).sum(), log_prob)
    assert gradient.tolist() == [pytest.approx([1.0, 0.25])] * 2


def test_gcpo_by_hand() -> None:
    used = torch.tensor([[1.0, 0.0], [0.2, torch.nan], [0.0, 0.0], [0.5, 0.5]])
    unused = torch.tensor([[0.0, 0.0], [0.9, 0.5], [0.0, 0.0], [0.4, 0.4]])
    assert contrast_bonus(used, unused, margin=0.1 + 1e-6).tolist() == [1.0, -1.0, 0.0, 0.0]
    assert contrast_bonus(used, unused, margin=0.05).tolist() == [1.0, -1.0, 0.0, 1.0]
    assert not math.isnan(float(contrast_bonus(used, unused, margin=0.0).sum()))
    with pytest.raises(ValueError, match="margin"):
        contrast_bonus(used, unused, margin=-0.1)
