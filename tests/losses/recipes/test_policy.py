from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes

F64 = torch.float64
NAN = float("nan")


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gradient(loss, *inputs: Tensor, **kwargs: object) -> Tensor:
    x = inputs[0].detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, *inputs[1:], **kwargs).sum(), x)[0]


def test_drpo_decoupled() -> None:
    drpo = recipes.get("drpo-decoupled")
    assert dict(drpo.defaults) == {"tau": 10.0, "lam": 0.1, "kl_coef": 1e3, "kl_bound": 1e-4}
    scores, old = f64([-1.0, -2.0, -0.5, -1.5], [-1.0, -1.0, -1.0, -1.0]), f64([-0.9, -2.0, -0.5, -1.5], [-1.0] * 4)
    positive = torch.tensor([[True, False, True, False], [True] * 4])
    quality = f64([0.1, 0.0, 0.2, 0.0], [0.0] * 4)
    share = 1 / (1 + math.exp(1.0))
    first = share * 1.0 + (1 - share) * 0.5 + 10 * math.log(math.exp(-0.2) + math.exp(-0.15))
    penalty = 500 * (0.1 / 8 - 1e-4) ** 2
    assert drpo(scores, old, positive, quality).tolist() == pytest.approx([first + penalty, penalty])
    far = drpo(scores - 0.4, old, positive, quality, kl_coef=1.0, kl_bound=0.1)
    assert far[1].item() == pytest.approx((0.4125 - 0.1) ** 2 / 2)
    near = drpo(scores, scores + 1e-5, positive, quality)  # inside the bound the penalty is gone
    assert near[1] == 0
    with pytest.raises(ValueError, match="old"):
        drpo(scores, old[:1], positive, quality)


def test_drpo_pulls_towards_the_old_policy_and_old_does_not_learn() -> None:
    drpo = recipes.get("drpo-decoupled")
    positive = torch.ones(1, 2, dtype=torch.bool)
    grad = gradient(drpo, f64([-1.0, -1.2]), f64([-0.8, -1.0]), positive, torch.zeros(1, 2))
    assert grad[0].tolist() == pytest.approx([-1e3 * (0.2 - 1e-4) / 2] * 2)
    old = f64([-0.8, -1.0]).requires_grad_()
    assert not drpo(f64([-1.0, -1.2]), old, positive, torch.zeros(1, 2)).requires_grad


def test_p3o() -> None:
    p3o = recipes.get("p3o")
    assert dict(p3o.defaults) == {"kl_coef": 0.01, "eps": 0.2, "cap": 10.0}
    x, rewards, r = f64([0.3, -0.2], [2.0, 1.9]), f64([3.0, 1.0], [0.0, 1.0]), f64([5.0, -5.0], [0.0, 0.0])
    want = [-1.9 * math.exp(0.1) * 0.2 / 2, 10 * 0.1 / 2]
    assert p3o(x, rewards, r).tolist() == pytest.approx(want)
    assert p3o(x, rewards, r, scale=2.0).tolist() == pytest.approx([w / 2 for w in want])


def test_retool() -> None:
    retool = recipes.get("retool")
    assert dict(retool.defaults) == {"eps": 0.2}
    x = f64([1.3, 5.0], [0.9, NAN]).log().requires_grad_()
    own = torch.tensor([[True, True], [True, False]])
    out = retool(x, f64(1.0, -1.0), mask=own)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert out.tolist() == [pytest.approx([-1.2, -1.2]), pytest.approx([0.9, 0.0])]
    assert grad.tolist() == [[0.0, 0.0], pytest.approx([0.9, 0.0])]
    bare = retool(x.detach(), f64(1.0, -1.0), mask=torch.tensor([[True, False], [True, False]]))
    assert bare[0, 1] == 0  # a tool's token, whatever its ratio


def test_props() -> None:
    props = recipes.get("props")
    assert dict(props.defaults) == {"eps": 0.2, "kl_coef": 0.1}
    x, kl = f64([1.0, 0.7, 1.5]).log(), f64([0.0, 2.0, 3.0])
    assert props(x, kl)[0].tolist() == pytest.approx([1.0, 0.8 + 0.2, 1.5 + 0.3])
    assert gradient(props, torch.zeros(1, 3, dtype=F64), 0 * kl)[0].tolist() == [1.0] * 3  # plus the score
    masked = props(x, f64([0.0, 2.0, NAN]), mask=torch.tensor([[1, 1, 0]]))
    assert masked[0].tolist() == pytest.approx([1.0, 1.0, 0.0])
    live = kl.clone().requires_grad_()
    assert torch.autograd.grad(props(x, live).sum(), live)[0].tolist() == [pytest.approx([0.1] * 3)]
    for bad in ({"kl_coef": -1.0}, {}):
        with pytest.raises(ValueError, match="kl"):
            props(x, kl if bad else kl[:, :2], **bad)


def test_brrl() -> None:
    brrl = recipes.get("brrl")
    assert dict(brrl.defaults) == {"eps": 0.3, "tau": 1e-4}
    rewards = f64([0.0, 1.0, 5.0])  # mean 2, median 1, unbiased std sqrt 7
    x = f64(0.9, 1.1, 1.5).log()
    std = math.sqrt(7.0) + 1e-6
    adv = [2.0 / std, 1.0 / std, 3.0 / std]
    assert brrl(x, rewards).tolist() == pytest.approx([adv[0] * 0.2, adv[1] * 0.1, adv[2] * 0.2])
    s = 1 / (1 + math.exp(-4 / std))
    soft = brrl(x, rewards, tau=1.0)
    assert soft[2].item() == pytest.approx(adv[2] * abs(1.5 - 0.7 - 0.6 * s))
    # a sample below the mean and on the median is held at 1, not pushed down
    assert gradient(brrl, x, rewards)[1].item() == pytest.approx(adv[1] * 1.1)
    assert gradient(brrl, x, rewards)[2] > 0  # past its goal: pulled back, where PPO has no gradient
    wide = brrl(x, rewards, std_eps=1.0)
    assert wide[0].item() == pytest.approx(2.0 / (math.sqrt(7.0) + 1.0) * 0.2)
    rows = brrl(x[:, None].expand(3, 2), rewards, mask=torch.tensor([[1, 0]] * 3))
    assert torch.allclose(rows[:, 0], brrl(x, rewards)) and (rows[:, 1] == 0).all()
