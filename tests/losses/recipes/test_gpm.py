from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes.gpm import general_preference, skew_score

D = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_value_by_hand() -> None:
    v_i = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=D)
    v_j = torch.tensor([7.0, 11.0, 13.0, 17.0], dtype=D)
    assert skew_score(v_i, v_j).item() == (11 - 14) + (51 - 65)
    assert skew_score(v_i, v_j, gate=torch.tensor([2.0, 0.5], dtype=D)).item() == -6 - 7


def test_one_gate_for_all_or_one_each() -> None:
    v_i, v_j = torch.randn(2, 3, 5, 4, dtype=D, generator=torch.Generator().manual_seed(0))
    gate = torch.tensor([2.0, 0.5], dtype=D)
    each = skew_score(v_i, v_j, gate=gate.expand(3, 5, 2))
    assert torch.equal(skew_score(v_i, v_j, gate=gate), each) and each.shape == (3, 5)


def test_antisymmetric_and_zero_on_itself() -> None:
    v_i, v_j = torch.randn(2, 5, 6, dtype=D, generator=torch.Generator().manual_seed(0))
    gate = torch.rand(5, 3, dtype=D, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(skew_score(v_i, v_j, gate=gate), -skew_score(v_j, v_i, gate=gate), atol=1e-12)
    assert torch.equal(skew_score(v_i, v_i), torch.zeros(5, dtype=D))


def test_reward_and_constant_are_bradley_terry() -> None:
    reward = torch.tensor([0.3, -1.0], dtype=D)
    v = torch.stack([reward, torch.full_like(reward, 1.5)], 1)
    assert skew_score(v[0], v[1]).item() == pytest.approx(1.5 * 1.3)  # positive: the first is better


def test_three_unit_vectors_beat_each_other_in_a_circle() -> None:
    angle = torch.arange(3, dtype=D) * 2 * math.pi / 3
    v = torch.stack([angle.cos(), angle.sin()], 1)
    scores = skew_score(v, v.roll(-1, 0))
    assert scores.tolist() == pytest.approx([math.sqrt(3) / 2] * 3)


def test_gradients() -> None:
    v = torch.randn(3, 4, 4, dtype=D, generator=torch.Generator().manual_seed(2)).requires_grad_()
    gate = torch.rand(4, 2, dtype=D, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, g: skew_score(a[0], a[1], gate=g), (v, gate))
    assert skew_score(v[0].half(), v[1].half()).dtype == torch.float32
    assert skew_score(v[0], v[1], gate=gate.half()).dtype == D


def test_bad_input_is_refused() -> None:
    for shape in ((2, 3), (2, 0), ()):
        with pytest.raises(ValueError, match="even"):
            skew_score(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="one shape"):
        skew_score(torch.zeros(2, 4), torch.zeros(4))
    with pytest.raises(ValueError, match="gate"):
        skew_score(torch.zeros(2, 4), torch.zeros(2, 4), gate=torch.zeros(4))
    with pytest.raises(ValueError, match="floating"):
        skew_score(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4))


def test_gpm_head() -> None:
    v_w, v_l = t([1.0, 0.5]), t([0.2, 0.9])  # .9 - .1
    assert general_preference(v_w, v_l).item() == pytest.approx(softplus(-8))
    assert general_preference(v_w, v_l, tau=0.5, gate=t(2.0)).item() == pytest.approx(softplus(-3.2))


def test_gpm_gpo() -> None:
    gpo, rewards = recipes.get("gpm-gpo"), t(0.2, -1.0, 0.5)
    v = torch.stack([rewards, torch.ones(3, dtype=D)], 1)
    log_ratio = t(100.0, -50.0, 0.0)
    centred = rewards - rewards.mean()  # with (reward, 1) the mean score over the group is the centred reward
    others = v[None].expand(3, -1, -1)
    assert torch.allclose(gpo(log_ratio, v, others), (1e-3 * log_ratio - centred) ** 2)
    assert torch.allclose(gpo(log_ratio, v, others, beta=1e-2), (1e-2 * log_ratio - centred) ** 2)
    gated = gpo(log_ratio, v, others, gate=t(2.0))
    assert torch.allclose(gated, (1e-3 * log_ratio - 2 * centred) ** 2)
    assert torch.allclose(gpo(log_ratio, v, others, gate=t(2.0)[None, None].expand(3, 1, 1)), gated)
    wide = torch.cat([v, 2 * v], 1)  # two planes, of weight 1 and 4
    both = gpo(log_ratio, wide, wide[None].expand(3, -1, -1), gate=t(3.0, 0.5))
    assert torch.allclose(both, (1e-3 * log_ratio - 5 * centred) ** 2)
    x, v = log_ratio.requires_grad_(), v.requires_grad_()
    grads = torch.autograd.grad(gpo(x, v, others).sum(), (x, v), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is None
