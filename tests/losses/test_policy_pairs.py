from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import group_advantage, loo_center, no_scale
from diffalign.losses import policy_pairs as P

F64 = torch.float64
PAIRS = [P.pair_plain, P.pair_joint, P.pair_separate]


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gradient(loss, x: Tensor, gap: Tensor, **kwargs: float) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, gap, **kwargs).sum(), x)[0]


def test_reward_gap_by_hand() -> None:
    rewards, r = f64([3.0, 1.0], [0.5, 2.0]), f64([10.0, 4.0], [0.0, 1.0])
    assert P.reward_gap(rewards).tolist() == [2.0, -1.5]
    assert P.reward_gap(rewards, kl_log_ratio=r).tolist() == pytest.approx([1.94, -1.49])
    assert P.reward_gap(rewards, kl_log_ratio=r, kl_coef=0.5, scale=2.0).tolist() == pytest.approx([-0.5, -0.5])


@pytest.mark.parametrize("loss", PAIRS)
def test_on_policy_gradient_is_leave_one_out(loss) -> None:
    rewards = f64([3.0, 1.0], [0.5, 2.0])
    adv = group_advantage(rewards, center=loo_center, scale=no_scale)
    grad = gradient(loss, torch.zeros(2, 2, dtype=F64), P.reward_gap(rewards))
    assert torch.allclose(grad, -adv / 2, atol=1e-12)


def test_pairs_of_all_samples_make_leave_one_out() -> None:
    r = f64(0.3, 1.7, -0.4, 2.2)
    total = torch.zeros(4, dtype=F64)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    for i, j in pairs:
        grad = gradient(P.pair_joint, torch.zeros(1, 2, dtype=F64), P.reward_gap(r[[i, j]][None]))
        total[[i, j]] += grad[0] / len(pairs)
    assert torch.allclose(-4 * total, group_advantage(r[None], center=loo_center, scale=no_scale)[0], atol=1e-12)


def test_joint_by_hand() -> None:
    x, gap = f64([0.3, -0.2], [0.1, 0.05], [-0.4, 0.1], [0.3, -0.2]), f64(2.0, 2.0, -1.0, -2.0)
    weight = [math.exp(0.1), math.exp(0.15), math.exp(-0.3), math.exp(0.1)]
    want = [-2 * weight[0] * 0.2 / 2, -2 * weight[1] * 0.05 / 2, weight[2] * -0.2 / 2, 2 * weight[3] * 0.5 / 2]
    assert P.pair_joint(x, gap).tolist() == pytest.approx(want)
    assert P.pair_joint(x[:1], gap[:1], eps=0.4).item() == pytest.approx(-2 * weight[0] * 0.4 / 2)
    assert P.pair_plain(x, gap).tolist() == pytest.approx(
        [-2 * weight[0] * 0.25, -weight[1] * 0.05, -weight[2] * 0.25, weight[3] * 0.5]
    )
    assert gradient(P.pair_joint, x, gap)[0].tolist() == [0.0, 0.0]
    assert gradient(P.pair_joint, x, gap)[3].tolist() == pytest.approx([weight[3], -weight[3]])


def test_the_weight_of_a_pair_is_held_on_both_sides() -> None:
    x = f64([3.0, 2.9], [-3.0, -3.1])
    assert P.pair_plain(x, f64(1.0, 1.0)).tolist() == pytest.approx([-10 * 0.05, -0.1 * 0.05])
    assert P.pair_plain(x, f64(1.0, 1.0), cap=2.0).tolist() == pytest.approx([-2 * 0.05, -0.5 * 0.05])
    assert P.pair_joint(x, f64(1.0, 1.0)).tolist() == pytest.approx([-0.5, -0.005])
    assert P.pair_joint(x, f64(1.0, 1.0), cap=1.0).tolist() == pytest.approx([-0.05, -0.05])


def test_separate_by_hand() -> None:
    x = f64([1.5, 0.9], [0.5, 1.1]).log()
    assert P.pair_separate(x, f64(2.0, 2.0)).tolist() == pytest.approx([-1.2 + 0.9, -0.5 + 1.1])
    assert P.pair_separate(x, f64(2.0, 2.0), eps=0.05).tolist() == pytest.approx([-1.05 + 0.95, -0.5 + 1.1])


@pytest.mark.parametrize("loss", PAIRS)
def test_order_of_a_pair_and_a_bonus_per_prompt_do_not_matter(loss) -> None:
    torch.manual_seed(0)
    x, rewards = torch.randn(20, 2, dtype=F64) * 0.3, torch.randn(20, 2, dtype=F64)
    out = loss(x, P.reward_gap(rewards))
    assert torch.allclose(loss(x.flip(1), P.reward_gap(rewards.flip(1))), out, atol=1e-12)
    assert torch.allclose(loss(x, P.reward_gap(rewards + torch.randn(20, 1, dtype=F64))), out, atol=1e-12)
    assert (loss(x, torch.zeros(20, dtype=F64)) == 0).all()


@pytest.mark.parametrize("loss", PAIRS)
def test_only_the_log_ratio_learns_and_corners_are_finite(loss) -> None:
    x, gap = (
        torch.tensor([[1e4, -50.0], [-1e4, 50.0], [0.0, 0.0]], requires_grad=True),
        torch.ones(3, requires_grad=True),
    )
    grads = torch.autograd.grad(loss(x, gap).sum(), (x, gap), allow_unused=True)
    assert torch.isfinite(grads[0]).all() and grads[1] is None
    assert loss(x.detach().bfloat16(), gap.detach().bfloat16()).dtype == torch.float32
    rewards = torch.ones(1, 2, requires_grad=True)
    assert not P.reward_gap(rewards, kl_log_ratio=rewards).requires_grad


def test_the_weight_carries_no_gradient() -> None:
    x, gap = f64([0.3, -0.1], [0.05, 0.1]), f64(2.0, -1.0)
    weight = torch.tensor([math.exp(0.2), math.exp(0.15)], dtype=F64)
    assert torch.allclose(gradient(P.pair_plain, x, gap)[:, 0], -gap * weight / 2, atol=1e-12)
    assert torch.allclose(gradient(P.pair_plain, x, gap).sum(1), torch.zeros(2, dtype=F64), atol=1e-12)


def test_bad_input_is_refused() -> None:
    x, gap = torch.zeros(3, 2), torch.zeros(3)
    for bad in [(torch.zeros(3, 3), gap), (x, torch.zeros(2)), (torch.zeros(3), gap)]:
        with pytest.raises(ValueError, match=r"\(B, 2\)"):
            P.pair_joint(*bad)
    with pytest.raises(ValueError, match="floating"):
        P.pair_plain(x.long(), gap)
    with pytest.raises(ValueError, match="eps"):
        P.pair_joint(x, gap, eps=-0.1)
    with pytest.raises(ValueError, match="cap"):
        P.pair_plain(x, gap, cap=0.9)
    for bad_rewards in (torch.zeros(3), torch.zeros(3, 3)):
        with pytest.raises(ValueError, match=r"\(B, 2\)"):
            P.reward_gap(bad_rewards)
    with pytest.raises(ValueError, match="kl_log_ratio"):
        P.reward_gap(x, kl_log_ratio=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="kl_coef"):
        P.reward_gap(x, kl_coef=-1.0)
    with pytest.raises(ValueError, match="scale"):
        P.reward_gap(x, scale=0.0)
