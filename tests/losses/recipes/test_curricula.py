from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

D = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_urpo() -> None:
    judged, labels = t([0.9, 0.1, 0.5, 7.0]), t([2.0, 0.0, 1.0, 0.0])
    assert recipes.get("urpo")(judged, labels, mask=torch.tensor([[1, 1, 1, 0]])).tolist() == [1]
    assert recipes.get("urpo")(judged, labels).tolist() == pytest.approx([3.5 / 6])  # 7 wrong twice, one tied label


def test_temporal_r1() -> None:
    rewards = t([0.3, 0.3, 0.3], [0.2, 0.3, 0.4], [0.0, 1.0, math.nan])
    assert recipes.get("temporal-r1")(rewards).tolist() == [False, True, True]
    assert recipes.get("temporal-r1")(rewards, above=0.01).tolist() == [False, False, True]  # 2/300 and 1/4
    assert recipes.get("temporal-r1")(rewards, mask=torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 1]])).tolist() == [
        False,
        False,
        True,
    ]


def test_ode_data() -> None:
    passed = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    assert recipes.get("ode-data")(passed).tolist() == [False, True, True, False]
    assert recipes.get("ode-data")(passed, mask=torch.tensor([[0, 1, 1]]).expand(4, -1)).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_uniworld_v2() -> None:
    good_and_uniform, good, uniform = [0.93, 0.93], [0.85, 0.99], [0.5, 0.5]
    keep = recipes.get("uniworld-v2")(t(good_and_uniform, good, uniform))
    assert keep.tolist() == [False, True, True]  # both are needed to drop
    edge = t([0.85, 0.94], [0.87, 0.96], [0.90, 0.98], [0.86, 0.97])  # means .895 .915 .94 .915, std .045 .045 .04 .055
    assert recipes.get("uniworld-v2")(edge).tolist() == [True, False, False, True]
    assert recipes.get("uniworld-v2")(edge, mask=torch.tensor([[1, 0]] * 4)).tolist() == [True, True, True, True]


def test_parrot() -> None:
    rewards = t([3.0, 2.0, 1.0, 1.0, 9.0], [1.0, 2.0, 3.0, 1.0, math.nan])
    assert recipes.get("parrot")(rewards).tolist() == [True, True, True, False, False]
    assert recipes.get("parrot")(torch.full((2, 2), math.nan)).tolist() == [False, False]


def test_dypo() -> None:
    passed = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 1]])
    x = torch.zeros(3, 3, dtype=D, requires_grad=True)
    ref, sft = t([0.0, 0.0, 0.0], [1.0, 0.5, -1.0], [1.0, 2.0, 3.0]).requires_grad_(), t(7.0, 8.0, 9.0).requires_grad_()
    loss = recipes.get("dypo")(passed, x, ref, sft)
    gal = (softplus(-0.5) + softplus(-2)) / 2
    assert loss.tolist() == pytest.approx([7, 0.5 * gal, 0])  # on-policy the mean of the centred GRPO term is 0
    a = 2 / 3 / math.sqrt(1 / 3)  # (1 - 1/3) over the unbiased std of 1, 0, 0
    grads = torch.autograd.grad(loss.sum(), (x, ref, sft))
    assert grads[0][1].tolist() == pytest.approx([-a / 6, a / 12, a / 12], rel=1e-5) and (grads[0][[0, 2]] == 0).all()
    assert (grads[1][[0, 2]] == 0).all() and grads[1][1, 0] < 0 < grads[1][1, 1] and grads[2].tolist() == [1, 0, 0]


def test_dypo_switches() -> None:
    passed, x, sft = torch.tensor([[1, 0]]), torch.zeros(1, 2, dtype=D), t(1.0)
    ref = t([0.5, 0.0])
    assert recipes.get("dypo")(passed, x, ref, sft, mix=0.0).item() == pytest.approx(softplus(-0.5))
    assert recipes.get("dypo")(passed, x, ref, sft, mix=0.25, beta=4.0).item() == pytest.approx(0.75 * softplus(-2))
    up = t([0.1, 0.0])  # ratio exp(.1) on the success, A = 1 / sqrt 2
    grpo = -(math.exp(0.1) - 1) * math.sqrt(0.5) / 2
    assert recipes.get("dypo")(passed, up, ref, sft, mix=1.0).item() == pytest.approx(grpo, rel=1e-5)
    assert recipes.get("dypo")(0 * passed, x, ref, sft, sft_weight=3.0).item() == 3
    for name, value in (("mix", 1.5), ("beta", 0.0)):
        with pytest.raises(ValueError, match=name):
            recipes.get("dypo")(passed, x, ref, sft, **{name: value})
    with pytest.raises(ValueError, match="one shape"):
        recipes.get("dypo")(passed, x, ref[:, :1], sft)


def test_fate_pfpo() -> None:
    rewards = t([[3.0, 1.0, 0.0, math.nan]], [[1.0, 3.0, 0.0, 9.0]])
    # ranks 0, 0, 1 of the scored: -rank has mean -1/3 and unbiased std sqrt(1/3)
    a = (1 / 3) / math.sqrt(1 / 3)
    assert recipes.get("fate-pfpo")(rewards)[0].tolist() == pytest.approx([a, a, -2 * a, 0], rel=1e-5)
    two = torch.cat([rewards, rewards.flip(2)], 1)
    assert recipes.get("fate-pfpo")(two)[1].tolist() == pytest.approx([0, -2 * a, a, a], rel=1e-5)  # prompt by prompt
    with pytest.raises(ValueError, match=r"\(K, B, G\)"):
        recipes.get("fate-pfpo")(rewards[0])
