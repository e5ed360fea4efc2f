from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import policy, policy_soft

F64 = torch.float64


def gradient(loss, x: Tensor, adv: Tensor, **kwargs: object) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, adv, **kwargs).sum(), x)[0]


def test_target_ratio_by_hand() -> None:
    goal = policy_soft.target_ratio(torch.tensor([0.5, -0.5, 0.0], dtype=F64), eps_low=0.2, eps_high=0.4, tau=0.25)
    s = 1 / (1 + math.exp(-2.0))
    assert goal.tolist() == pytest.approx([0.8 + 0.6 * s, 0.8 + 0.6 * (1 - s), 1.1], abs=1e-12)
    far = policy_soft.target_ratio(torch.tensor([1.0, -1.0, 0.0], dtype=F64))
    assert far.tolist() == pytest.approx([1.3, 0.7, 1.0], abs=1e-12)
    near = policy_soft.target_ratio(torch.tensor([1e-4], dtype=F64))
    assert near.item() == pytest.approx(0.7 + 0.6 / (1 + math.exp(-1.0)), abs=1e-12)


def test_target_is_a_distance_with_its_gradient() -> None:
    x = torch.tensor([1.1, 0.5], dtype=F64).log()
    adv, goal = torch.tensor([2.0, -3.0], dtype=F64), torch.tensor([1.3, 0.7], dtype=F64)
    assert policy_soft.target(x, adv, goal=goal).tolist() == pytest.approx([0.4, 0.6])
    assert gradient(policy_soft.target, x, adv, goal=goal).tolist() == pytest.approx([-2.2, -1.5])
    assert policy_soft.target(goal.log(), adv, goal=goal).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_target_follows_the_clip_inside_and_pulls_back_outside() -> None:
    rho = torch.tensor([0.75, 0.85, 1.0, 1.15, 1.25], dtype=F64)
    for sign in (1.0, -1.0):
        adv = torch.full((5,), 1.7 * sign, dtype=F64)
        goal = 1 + 0.2 * adv.sign()
        ours, ppo = gradient(policy_soft.target, rho.log(), adv, goal=goal), gradient(policy.clip, rho.log(), adv)
        past = (rho - goal) * sign > 0
        assert torch.allclose(ours[~past], ppo[~past]) and (ppo[past] == 0).all()
        assert torch.allclose(ours[past], -ppo[past] + 1.7 * sign * rho[past]) and past.sum() == 1


def test_target_knows_its_mask_its_shapes_and_its_bound() -> None:
    mask = torch.tensor([[1, 0]])
    x = torch.tensor([[0.1, float("nan")]], dtype=F64, requires_grad=True)
    goal = torch.tensor([[1.0, float("inf")]], dtype=F64, requires_grad=True)
    out = policy_soft.target(x, torch.tensor([[1.0, float("nan")]], dtype=F64), goal=goal, mask=mask)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert out[0, 1] == 0 and grad[0, 1] == 0 and out[0, 0].item() == pytest.approx(math.exp(0.1) - 1)
    rows = policy_soft.target(torch.zeros(2, 2), torch.ones(2), goal=torch.tensor([0.5, 2.0]))
    assert rows.tolist() == [[0.5, 0.5], [1.0, 1.0]]
    wide = policy_soft.target(torch.tensor([1e4, -1e4]), torch.ones(2), goal=torch.ones(2))
    assert wide[0].item() == pytest.approx(math.exp(20.0), rel=1e-5) and wide[1].item() == pytest.approx(1.0)
    held = policy_soft.target(torch.tensor([9.0]), torch.ones(1), goal=torch.ones(1), max_log_ratio=math.log(3.0))
    assert held.item() == pytest.approx(2.0)


def test_target_carries_no_gradient_to_goal_or_advantage() -> None:
    x, adv, goal = (torch.full((3,), v, dtype=F64, requires_grad=True) for v in (0.1, 2.0, 0.9))
    grads = torch.autograd.grad(policy_soft.target(x, adv, goal=goal).sum(), (x, adv, goal), allow_unused=True)
    assert (grads[0] > 0).all() and grads[1] is None and grads[2] is None
    assert not policy_soft.target_ratio(torch.ones(2, requires_grad=True)).requires_grad
    assert torch.autograd.gradcheck(lambda x: policy_soft.target(x, adv, goal=goal), x)


@pytest.mark.parametrize("bad", [{"eps_low": -0.1}, {"eps_high": -0.1}, {"tau": 0.0}])
def test_target_ratio_refuses_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        policy_soft.target_ratio(torch.zeros(2), **bad)


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    x = torch.tensor([2.0, -3.0, 0.1], dtype=F64)
    adv = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    found = gradient(policy_soft.cispo, x, adv, eps_low=0.2, eps_high=0.3)
    assert found.tolist() == pytest.approx([-1.3, 2 * 0.8, -0.5 * math.exp(0.1)])
    assert gradient(policy_soft.cispo, x, adv).tolist() == pytest.approx(
        [-5.0, 2 * math.exp(-3.0), -0.5 * math.exp(0.1)]
    )
    assert policy_soft.cispo(x, adv, eps_high=0.3)[0].item() == pytest.approx(-2.6)


def test_sapo_has_the_slope_of_the_ratio_at_one_and_fades_faster_for_bad_samples() -> None:
    one = torch.zeros(2, dtype=F64)
    adv = torch.tensor([2.0, -3.0], dtype=F64)
    assert torch.allclose(gradient(policy_soft.sapo, one, adv), -adv)
    away = torch.full((2,), 0.7, dtype=F64)
    slopes = gradient(policy_soft.sapo, away, torch.tensor([1.0, -1.0], dtype=F64), tau_neg=2.0).abs()
    rho = math.exp(0.7)
    expected = [4 * rho * g * (1 - g) for g in (1 / (1 + math.exp(-t * (rho - 1))) for t in (1.0, 2.0))]
    assert slopes.tolist() == pytest.approx(expected) and slopes[1] < slopes[0]


def test_vespos_weight_is_one_at_the_rollout_policy_and_largest_near_it() -> None:
    adv = torch.tensor([1.0, -1.0], dtype=F64)
    weight = lambda total: gradient(policy_soft.vespo, torch.full((2, 2), total / 2, dtype=F64), adv)[:, 0].abs()  # noqa: E731
    assert torch.allclose(weight(0.0), torch.ones(2, dtype=F64))
    w = math.exp(0.4)
    assert weight(0.4).tolist() == pytest.approx([w**2 * math.exp(3 * (1 - w)), w**3 * math.exp(2 * (1 - w))])
    far = weight(1e4) + weight(-1e4)
    assert (far < 1e-12).all() and far.isfinite().all()
    single = gradient(policy_soft.vespo, torch.tensor([0.4, 0.4], dtype=F64), adv)
    assert torch.allclose(single.abs(), weight(0.4))


def test_dro_is_least_at_the_advantage_over_beta() -> None:
    adv = torch.tensor([0.3, -0.8], dtype=F64)
    assert gradient(policy_soft.dro, adv / 0.25, adv, beta=0.25).tolist() == pytest.approx([0.0, 0.0])
    assert policy_soft.dro(torch.ones(1), torch.ones(1)).item() == pytest.approx(-1 + 0.05)


@pytest.mark.parametrize("loss", [policy_soft.cispo, policy_soft.sapo, policy_soft.vespo, policy_soft.dro])
def test_masked_entries_neither_leak_nor_learn(loss) -> None:
    x = torch.tensor([[0.1, float("nan")], [0.2, 0.3]], dtype=F64, requires_grad=True)
    adv = torch.tensor([1.0, -1.0], dtype=F64, requires_grad=True)
    out = loss(x, adv, mask=torch.tensor([[1, 0], [1, 1]]))
    grads = torch.autograd.grad(out.sum(), (x, adv), allow_unused=True)
    assert out[0, 1] == 0 and grads[0][0, 1] == 0 and grads[0][0, 0] < 0 < grads[0][1, 0] and grads[1] is None
    alone = loss(x.detach()[:1, :1], adv[:1])
    assert torch.allclose(out[0, 0], alone[0, 0])


@pytest.mark.parametrize(
    ("loss", "bad"),
    [
        (policy_soft.cispo, {"eps_low": -0.1}),
        (policy_soft.cispo, {"eps_high": -0.1}),
        (policy_soft.sapo, {"tau_pos": 0.0}),
        (policy_soft.sapo, {"tau_neg": 0.0}),
        (policy_soft.vespo, {"k_pos": -1.0}),
        (policy_soft.vespo, {"k_neg": -1.0}),
        (policy_soft.vespo, {"lam_pos": 0.0}),
        (policy_soft.vespo, {"lam_neg": 0.0}),
        (policy_soft.dro, {"beta": 0.0}),
    ],
)
def test_bad_settings_are_refused(loss, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        loss(torch.zeros(2), torch.zeros(2), **bad)


def test_defaults() -> None:
    assert policy_soft.cispo.__kwdefaults__ == {"eps_low": 1.0, "eps_high": 4.0, "mask": None}
    assert policy_soft.sapo.__kwdefaults__ == {"tau_pos": 1.0, "tau_neg": 1.05, "mask": None}
    assert policy_soft.vespo.__kwdefaults__ == {
        "k_pos": 2.0, "lam_pos": 3.0, "k_neg": 3.0, "lam_neg": 2.0, "mask": None,
    }  # fmt: skip


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_vespo_is_linear_in_advantages_of_one_sign(sign: float) -> None:
    x = torch.tensor([[0.3, -0.2]], dtype=F64)
    half, whole = (policy_soft.vespo(x, torch.tensor([sign * size], dtype=F64)) for size in (0.5, 1.0))
    assert torch.allclose(2 * half, whole)
