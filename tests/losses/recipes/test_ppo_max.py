"""PPO-max: rewards by hand, the three terms of the loss, and what does not learn."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import empty_moments, recipes
from diffalign.losses.recipes.ppo_max import ValueHead, ppo_max_rewards

F64 = torch.float64


def t(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=F64)


HEAD = ValueHead(t([0.5, 2.0]), t([0.0, 1.5]), t([1.0, 1.0]))


def test_rewards_by_hand() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    log_ratio = torch.tensor([[0.5, -1.0, math.nan], [0.25, 0.0, 2.0]], dtype=F64, requires_grad=True)
    stats, dense = ppo_max_rewards(empty_moments(), torch.tensor([1.0, 3.0], dtype=F64), log_ratio, mask)
    assert dense.flatten().tolist() == pytest.approx([-0.01, 0.02 - 1.0, 0.0, -0.005, 0.0, 1.0 - 0.04])
    assert not dense.requires_grad and stats.mean.item() == 2.0 and stats.n.item() == 2
    later, _ = ppo_max_rewards(stats, torch.tensor([8.0, 4.0], dtype=F64), log_ratio, mask)
    assert later.mean.item() == 4.0


def test_a_reward_far_out_is_held_and_settings_count() -> None:
    stats, rewards = empty_moments(), torch.zeros(200, dtype=F64)
    rewards[0] = 1.0
    mask = torch.ones(200, 1)
    log_ratio = torch.ones(200, 1, dtype=F64)
    held = ppo_max_rewards(stats, rewards, log_ratio, mask)[1]
    assert held[0].item() == pytest.approx(10.0 - 0.02)  # it is 14 deviations out
    assert ppo_max_rewards(stats, rewards, log_ratio, mask, kl=0.5, bound=3.0)[1][0].item() == pytest.approx(2.5)


def test_loss_by_hand() -> None:
    x = t([math.log(1.5), math.log(0.9)])
    loss = recipes.get("ppo-max")(x, t([2.0, -1.0]), head=HEAD)
    # policy -2.4 (clipped) and .9; values: max(.25, (.2 - 1)**2) / 2 and max(1, .7**2) / 2
    assert loss.flatten().tolist() == pytest.approx([-2.4 + 0.32, 0.9 + 0.5])


def test_published_settings_and_the_clip_range_of_both() -> None:
    assert dict(recipes.get("ppo-max").defaults) == {"eps": 0.2, "ptx": 0.0}
    wide = recipes.get("ppo-max")(t([math.log(1.5), 0.0]), t([2.0, -1.0]), head=HEAD, eps=0.4)
    assert wide.flatten().tolist() == pytest.approx([-2.8 + 0.18, 1.0 + 0.5])


def test_the_pretraining_term_is_the_mean_nll() -> None:
    x, adv, text = t([0.0, 0.0]), t([0.0, 0.0]), t([-1.0, -4.0, -4.0])
    base = recipes.get("ppo-max")(x, adv, head=HEAD)
    assert torch.equal(recipes.get("ppo-max")(x, adv, head=HEAD, pretraining=text), base)
    assert torch.allclose(recipes.get("ppo-max")(x, adv, head=HEAD, pretraining=text, ptx=0.5), base + 1.5)


def test_masked_tokens_neither_leak_nor_learn() -> None:
    mask = torch.tensor([[1, 0]])
    x, values = t([0.1, math.nan]).requires_grad_(), t([0.5, math.inf]).requires_grad_()
    head = ValueHead(values, t([0.4, math.nan]), t([1.0, math.inf]))
    loss = recipes.get("ppo-max")(x, t([1.0, math.nan]), head=head, mask=mask, pretraining=t([-1.0]), ptx=1.0)
    grads = torch.autograd.grad(loss.sum(), (x, values))
    assert loss[0, 1] == 0 and torch.isfinite(loss).all()
    assert all(g[0, 1] == 0 and g[0, 0] < 0 for g in grads)


def test_only_policy_values_and_text_learn() -> None:
    inputs = [x.requires_grad_() for x in (t([0.1]), t([1.0]), t([0.5]), t([0.4]), t([1.0]), t([-2.0]))]
    x, adv, *head, text = inputs
    loss = recipes.get("ppo-max")(x, adv, head=ValueHead(*head), pretraining=text, ptx=0.5)
    grads = torch.autograd.grad(loss.sum(), inputs, allow_unused=True)
    assert [g is not None for g in grads] == [True, False, True, False, False, True]
    assert grads[-1].item() == -0.5
