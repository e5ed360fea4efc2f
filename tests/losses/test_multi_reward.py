from __future__ import annotations

from functools import partial

import pytest
import torch

from diffalign.losses import (
    advantage_of_sum,
    batch_std,
    batch_whiten,
    gdpo_advantage,
    group_advantage,
    loo_center,
    mean_center,
    no_scale,
    sum_of_advantages,
)

F64 = torch.float64
EXACT = partial(group_advantage, eps=0.0)
NAN = float("nan")


def two() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 5, dtype=F64)


@pytest.mark.parametrize("combine", [advantage_of_sum, sum_of_advantages])
@pytest.mark.parametrize("scale", [no_scale, batch_std])
def test_one_reward_is_the_plain_advantage(combine, scale) -> None:
    advantage = partial(group_advantage, scale=scale)
    assert torch.equal(combine(two()[:1], [1.0], advantage=advantage), advantage(two()[0]))


def test_an_affine_change_of_one_reward_moves_the_sum_but_not_the_per_reward_form() -> None:
    r = two()
    changed = torch.stack([r[0], 50 * r[1] - 3])
    per_reward = [sum_of_advantages(x, [1.0, 0.5], advantage=EXACT) for x in (r, changed)]
    summed = [advantage_of_sum(x, [1.0, 0.5], advantage=EXACT) for x in (r, changed)]
    assert torch.allclose(*per_reward, atol=1e-10)
    assert (summed[0] - summed[1]).abs().max() > 0.1


@pytest.mark.parametrize("combine", [advantage_of_sum, sum_of_advantages])
def test_no_gradient_even_if_the_advantage_lets_it_through(combine) -> None:
    found = combine(two().requires_grad_(), [1.0, 0.5], advantage=lambda rewards, mask=None: 2 * rewards)
    assert torch.allclose(found, 2 * two()[0] + two()[1]) and not found.requires_grad


@pytest.mark.parametrize("center", [mean_center, loo_center])
def test_centred_advantages_add_and_normalised_ones_do_not(center) -> None:
    linear = partial(group_advantage, center=center, scale=no_scale)
    weights = [0.3, 2.0]
    first = advantage_of_sum(two(), weights, advantage=linear)
    assert torch.allclose(first, sum_of_advantages(two(), weights, advantage=linear), atol=1e-12)
    gap = advantage_of_sum(two(), weights, advantage=EXACT) - sum_of_advantages(two(), weights, advantage=EXACT)
    assert gap.abs().max() > 0.1


def test_a_large_reward_rules_the_sum_only() -> None:
    small, large = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[2000.0, 1000.0, 0.0]])
    r = torch.stack([small, large])
    assert advantage_of_sum(r, [1.0, 1.0])[0, 0] > 0.9
    assert sum_of_advantages(r, [1.0, 1.0]).abs().max() < 1e-5


def test_an_unscored_reward_drops_the_sample_from_the_sum_or_only_from_its_own_term() -> None:
    r = two()
    r[1, 0, 2] = NAN
    others = [0, 1, 3, 4]
    summed = advantage_of_sum(r, [1.0, 1.0])
    assert summed[0, 2] == 0
    assert torch.allclose(summed[:1, others], advantage_of_sum(r[:, :1, others], [1.0, 1.0]), atol=1e-12)
    separate = sum_of_advantages(r, [1.0, 1.0])
    assert separate[0, 2] == group_advantage(r[0])[0, 2]


@pytest.mark.parametrize("combine", [advantage_of_sum, sum_of_advantages])
def test_a_reward_of_weight_zero_is_not_looked_at(combine) -> None:
    r = two()
    r[1] = NAN
    assert torch.equal(combine(r, [1.0, 0.0]), combine(r[:1], [1.0]))


@pytest.mark.parametrize("combine", [advantage_of_sum, sum_of_advantages])
def test_mask_result_and_errors(combine) -> None:
    r = two().requires_grad_()
    mask = torch.ones(3, 5)
    mask[1, 1] = 0
    out = combine(r, [1.0, 1.0], mask=mask)
    assert out[1, 1] == 0 and (out[0] != 0).all() and not out.requires_grad
    with pytest.raises(ValueError, match="3 weights"):
        combine(two(), [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="weight 0"):
        combine(two(), [0.0, 0.0])
    with pytest.raises(ValueError, match=r"\(K, B, G\)"):
        combine(two()[0], [1.0, 1.0, 1.0])


def test_gdpo_is_the_number_of_released_code() -> None:
    """`normalize_then_sum` of TRL 1.16.0, trl/trainer/grpo_trainer.py, weights 1 and .5, groups of 3."""
    r = torch.tensor([[[1.0, 2.0, 4.0], [0.0, 1.0, 1.0]], [[3.0, 0.0, 1.0], [5.0, 5.0, 8.0]]], dtype=F64)
    expected = [-0.327311, -0.654622, 0.981934, -1.443185, 0.288597, 1.154588]
    assert gdpo_advantage(r, [1.0, 0.5]).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_gdpo_has_batch_mean_zero_and_unit_std_whatever_the_weights() -> None:
    for weights in ([1.0, 1.0], [0.01, 0.05]):
        adv = gdpo_advantage(two(), weights, eps=0.0)
        assert adv.mean().item() == pytest.approx(0, abs=1e-12) and adv.std().item() == pytest.approx(1)
    assert torch.allclose(adv, gdpo_advantage(two(), [1.0, 5.0], eps=0.0))
    population = gdpo_advantage(two(), [1.0, 5.0], eps=0.0, unbiased=False)
    assert population.std(correction=0).item() == pytest.approx(1)


def test_gdpo_leaves_out_what_no_reward_could_score() -> None:
    r = two()
    r[:, 0, 2] = NAN
    r[1, 1, 0] = NAN
    adv = gdpo_advantage(r, [1.0, 1.0])
    mask = torch.ones(3, 5)
    mask[0, 2] = 0
    assert adv[0, 2] == 0 and adv[1, 0] != 0 and torch.equal(adv, gdpo_advantage(r, [1.0, 1.0], mask=mask))
    kept = adv[mask.bool()]
    assert kept.mean().item() == pytest.approx(0, abs=1e-9) and kept.std().item() == pytest.approx(1, abs=1e-3)


def test_whitening_has_no_gradient_and_trls_eps() -> None:
    assert not batch_whiten(two()[0].requires_grad_()).requires_grad
    assert batch_whiten.__kwdefaults__ == {"mask": None, "unbiased": True, "eps": 1e-4}


def test_whitening_is_over_the_batch_not_the_group() -> None:
    adv = batch_whiten(torch.tensor([[0.0, 1.0], [10.0, 13.0]]), eps=0.0)
    assert adv.sum().item() == pytest.approx(0, abs=1e-6) and adv[0].sum() < -1
    assert (batch_whiten(torch.full((2, 3), 0.1)) == 0).all()
