from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch.nn.functional import logsigmoid

from diffalign.losses import preference
from diffalign.losses.label_noise import soft_label
from diffalign.losses.listwise import best_first, gap_temperature, group_softmax, plackett_luce, target_kl

F64 = torch.float64


def group(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=F64)


def test_golden_kl() -> None:
    assert target_kl(group(1, 2, 3), group(0.2, 0.3, 0.5)).item() == pytest.approx(0.0779529503798067, abs=1e-12)


def test_the_gradient_is_softmax_minus_target() -> None:
    s = torch.randn(3, 5, dtype=F64, requires_grad=True)
    target = torch.rand(3, 5, dtype=F64)
    target = target / target.sum(1, keepdim=True)
    target_kl(s, target).sum().backward()
    assert torch.allclose(s.grad, s.detach().softmax(1) - target, atol=1e-12)


def test_zero_where_scores_are_the_log_target_up_to_a_constant() -> None:
    target = group(0.1, 0.7, 0.2)
    for constant in (-3.0, 0.0, 11.0):
        assert target_kl(target.log() + constant, target).item() == pytest.approx(0, abs=1e-12)
    assert target_kl(torch.zeros(1, 3, dtype=F64), target).item() > 0.1


def test_two_samples_are_the_pair_loss_with_a_soft_label_up_to_its_entropy() -> None:
    s, p = torch.randn(1, 2, dtype=F64), 0.7
    soft = soft_label(preference.logistic, s[:, 0] - s[:, 1], p)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert torch.allclose(target_kl(s, group(p, 1 - p)), soft - entropy, atol=1e-12)


def test_a_one_hot_target_is_the_first_stage_of_plackett_luce() -> None:
    s = torch.randn(1, 4, dtype=F64)
    first = target_kl(s, group(1, 0, 0, 0))
    assert torch.allclose(plackett_luce(s) - plackett_luce(s[:, 1:]), first, atol=1e-12)


def test_golden_order() -> None:
    assert plackett_luce(group(0.2, -0.4, 1.1)).item() == pytest.approx(3.0898091162646835, abs=1e-12)


def test_probabilities_of_all_orders_sum_to_one() -> None:
    s = torch.randn(1, 4, dtype=F64)
    total = sum(torch.exp(-plackett_luce(s[:, list(p)])).item() for p in permutations(range(4)))
    assert total == pytest.approx(1, abs=1e-12)


def test_golden_pro_with_reward_gaps() -> None:
    temperature = gap_temperature(group(3, 1.5, 1, -1))
    loss = plackett_luce(group(-0.3, -0.9, -0.2, -1.4), temperature=temperature)
    assert loss.item() == pytest.approx(3.787101567568782, abs=1e-12)


def test_pro_of_two_is_logistic_on_the_gap_and_equal_rewards_teach_nothing() -> None:
    s = torch.randn(1, 2, dtype=F64)
    loss = plackett_luce(s, temperature=gap_temperature(group(2.5, 1.0)))
    assert torch.allclose(loss, -logsigmoid((s[:, 0] - s[:, 1]) * 1.5), atol=1e-12)
    s = torch.randn(1, 4, dtype=F64, requires_grad=True)
    loss = plackett_luce(s, temperature=gap_temperature(group(1, 1, 1, 1)))
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(24), abs=1e-12)  # log 4 + log 3 + log 2
    assert s.grad.abs().max() == 0


def test_temperatures_by_hand() -> None:
    assert gap_temperature(group(3, 2, 0)).tolist() == [[[3, 1, 3], [0, 2, 2], [0, 0, 0]]]
    masked = gap_temperature(torch.tensor([[3.0, 2.0, math.nan, 0.0]]), torch.tensor([[1, 1, 1, 0]]))
    assert masked.tolist() == [[[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
    rewards = group(3, 2, 0).requires_grad_()
    assert not gap_temperature(rewards).requires_grad


def test_best_first_is_stable_and_puts_what_does_not_count_last() -> None:
    labels = torch.tensor([[1.0, 5.0, math.nan, 5.0, 9.0]])
    assert best_first(labels, torch.tensor([[1, 1, 1, 1, 0]])).tolist() == [[1, 3, 0, 2, 4]]
    assert best_first(torch.tensor([[2, 3]])).tolist() == [[1, 0]]


def test_a_target_is_the_softmax_over_what_counts() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0, math.nan], [1.0, 2.0, 3.0]], dtype=F64, requires_grad=True)
    target = group_softmax(logits, torch.tensor([[1, 1, 0], [0, 0, 0]]))
    assert not target.requires_grad
    assert target.flatten().tolist() == pytest.approx([0.75, 0.25, 0, 0, 0, 0], abs=1e-12)
    assert group_softmax(logits[1:]).sum().item() == pytest.approx(1, abs=1e-12)


LOSSES = [lambda s, mask=None: target_kl(s, group_softmax(2 * s, mask), mask=mask), plackett_luce]


@pytest.mark.parametrize("loss", LOSSES)
def test_padding_is_as_if_it_were_not_there(loss) -> None:
    s = torch.tensor([[0.3, -1.0, 0.4, math.nan, math.inf]], dtype=F64, requires_grad=True)
    value = loss(s, mask=torch.tensor([[1, 1, 1, 0, 0]]))
    value.sum().backward()
    alone = s.detach()[:, :3].requires_grad_()
    loss(alone).sum().backward()
    assert torch.allclose(value, loss(alone), atol=1e-12)
    assert torch.allclose(s.grad[:, :3], alone.grad, atol=1e-12) and s.grad[0, 3:].tolist() == [0, 0]
    gap = torch.tensor([[0.3, math.nan, -1.0]], dtype=F64)
    assert torch.allclose(loss(gap, mask=torch.tensor([[1, 0, 1]])), loss(gap[:, [0, 2]]), atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_groups_of_one_and_empty_groups_teach_nothing(loss) -> None:
    s = torch.randn(3, 2, dtype=F64, requires_grad=True)
    value = loss(s, mask=torch.tensor([[1, 0], [0, 0], [0, 1]]))
    value.sum().backward()
    assert value.tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert s.grad.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [50.0, 1e4])
def test_extreme_scores_stay_finite(dtype: torch.dtype, size: float) -> None:
    s = torch.tensor([[-size, 0.0, size], [size, size, -size]], dtype=dtype, requires_grad=True)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], dtype=dtype)
    value = target_kl(s, target, mask=mask) + plackett_luce(s, mask=mask)
    value.sum().backward()
    assert value.dtype == torch.float32 and value.isfinite().all() and s.grad.isfinite().all()


def test_gradients_are_right_and_reach_the_scores_alone() -> None:
    s = torch.randn(2, 3, dtype=F64, requires_grad=True)
    target = torch.randn(2, 3, dtype=F64).softmax(1).requires_grad_()
    temperature = torch.rand(2, 3, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: target_kl(x, target.detach()), s)
    assert torch.autograd.gradcheck(lambda x: plackett_luce(x, temperature=temperature.detach()), s)
    (target_kl(s, target) + plackett_luce(s, temperature=temperature)).sum().backward()
    assert target.grad is None and temperature.grad is None
    assert s.grad.abs().min() > 0


def test_a_target_kl_does_not_see_the_order_of_candidates() -> None:
    s, target = torch.randn(1, 4, dtype=F64), group(0.1, 0.2, 0.3, 0.4)
    for p in permutations(range(4)):
        assert torch.allclose(target_kl(s[:, list(p)], target[:, list(p)]), target_kl(s, target), atol=1e-12)


def test_bad_input_is_refused() -> None:
    s = torch.zeros(1, 2)
    for target in (torch.tensor([[0.5, 0.6]]), torch.tensor([[1.5, -0.5]]), torch.tensor([[0.5, 0.4]])):
        with pytest.raises(ValueError, match="distribution"):
            target_kl(s, target)
    target_kl(s, torch.tensor([[0.5, 0.505]]))  # rounded to half precision, a softmax still passes
    with pytest.raises(ValueError, match="distribution"):
        target_kl(s, torch.tensor([[0.5, 0.5]]), mask=torch.tensor([[1, 0]]))
    with pytest.raises(ValueError, match=r"target \(1, 3\)"):
        target_kl(s, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="floating"):
        target_kl(s.long(), s + 0.5)
    with pytest.raises(ValueError, match="floating"):
        plackett_luce(s.long())
    with pytest.raises(ValueError, match="temperature"):
        plackett_luce(s, temperature=torch.ones(1, 2))
    for f in (plackett_luce, best_first, gap_temperature, group_softmax):
        with pytest.raises(ValueError, match=r"\(B, G\)"):
            f(torch.zeros(3))
    for f in (
        lambda m: plackett_luce(s, mask=m),
        lambda m: group_softmax(s, m),
        lambda m: target_kl(s, s + 0.5, mask=m),
    ):
        with pytest.raises(ValueError, match="no valid entry"):
            f(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="best first"):
        gap_temperature(torch.tensor([[1.0, 2.0]]))
