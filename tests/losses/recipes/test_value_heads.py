from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

D = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def test_itakura_saito() -> None:
    rewards, beta = t(0.3, -1.0, 2.0), 0.5
    value = torch.zeros((), dtype=D, requires_grad=True)
    step = torch.optim.SGD([value], lr=0.1)
    for _ in range(400):
        step.zero_grad()
        recipes.get("itakura-saito")(value.expand(3), rewards, alpha=-1 / beta).mean().backward()
        step.step()
    assert value.item() == pytest.approx(
        beta * math.log(sum(math.exp(r / beta) for r in rewards.tolist()) / 3), abs=1e-4
    )


def test_orchestrated_value() -> None:
    mapped, target = t(math.log(3)).requires_grad_(), t(5.0)  # value 2; a tenth of the way: 2.3
    loss = recipes.get("orchestrated-value")(mapped, target)
    assert loss.item() == pytest.approx(math.log(3.3 / 3) ** 2 / 2)
    (g,) = torch.autograd.grad(loss.sum(), mapped)
    assert g.item() == pytest.approx(-math.log(3.3 / 3))  # the goal is held
    other = recipes.get("orchestrated-value")(t(2 * math.log(3)), target, scale=2.0, shift=0.5, rate=1.0)
    assert other.item() == pytest.approx((2 * math.log(5.5 / 3)) ** 2 / 2)
    half = recipes.get("orchestrated-value")(t(2 * math.log(3)), target, scale=2.0, rate=0.5)
    assert half.item() == pytest.approx((2 * math.log(4.5 / 3)) ** 2 / 2)
    with pytest.raises(ValueError, match="raise shift"):
        recipes.get("orchestrated-value")(t(0.0), t(-1.0), rate=1.0)


def test_orchestrated_value_learns_the_mean_and_not_the_mean_of_logs() -> None:
    rewards = t(0.0, 8.0)
    mapped = torch.zeros((), dtype=D, requires_grad=True)
    step = torch.optim.SGD([mapped], lr=0.5)
    for _ in range(2000):
        step.zero_grad()
        recipes.get("orchestrated-value")(mapped.expand(2), rewards, rate=0.01).mean().backward()
        step.step()
    assert mapped.exp().item() - 1 == pytest.approx(4.0, abs=0.1)  # regression on logs would give 2


def test_rbrl() -> None:
    scores, labels = t(0.0, 4.0, 1.0, 2.0), torch.tensor([0, 1, 0, 1])
    # r = 0, 1, .25, .5; boundary halfway between .25 and .5; two classes: a logistic of slope 30
    expected = [math.log1p(math.exp(-30 * abs(r - 0.375))) for r in (0, 1, 0.25, 0.5)]
    assert recipes.get("rbrl")(scores, labels, classes=2).tolist() == pytest.approx(expected)
    soft = recipes.get("rbrl")(scores, labels, classes=2, k=3.0)
    assert soft[3].item() == pytest.approx(math.log1p(math.exp(-0.375)))
    assert torch.allclose(recipes.get("rbrl")(7 * scores - 3, labels, classes=2), t(*expected))
    three = recipes.get("rbrl")(scores, torch.tensor([0, 1, 0, 1]), classes=3)  # the last class is empty: [1, 1]
    assert three.shape == (4,) and torch.isfinite(three).all()


def test_qrm() -> None:
    quantiles, target = t([0.0, 1.0, 5.0]), t(2.0)
    # levels 1/4, 1/2, 3/4
    assert recipes.get("qrm")(quantiles, target)[0].tolist() == pytest.approx([0.5, 0.5, 0.75])
    own = recipes.get("qrm")(quantiles, target, levels=t(0.1, 0.2, 0.9))
    assert own[0].tolist() == pytest.approx([0.2, 0.2, 0.3])
    half = recipes.get("qrm")(quantiles[:, :1], target)
    assert half.item() == pytest.approx(1.0)  # one quantile is the median
    with pytest.raises(ValueError, match="target"):
        recipes.get("qrm")(quantiles, target[:, None])


def test_hra() -> None:
    values, rewards, after = t([1.0, 2.0], [0.0, 1.0]), t([0.5, 0.0], [1.0, 1.0]), t([2.0, 0.0], [4.0, 0.0])
    loss = recipes.get("hra")(values, rewards, after, t(1.0, 3.0))
    assert loss.tolist() == [[1.5**2 / 2, 2.0], [3 * 12.5, 0.0]]
    near = recipes.get("hra")(values, rewards, after, t(1.0, 3.0), gamma=0.5)
    assert near.tolist() == [[0.5**2 / 2, 2.0], [3 * 4.5, 0.0]]
    v, nxt = values.requires_grad_(), after.requires_grad_()
    grads = torch.autograd.grad(recipes.get("hra")(v, rewards, nxt, t(1.0, 3.0)).sum(), (v, nxt), allow_unused=True)
    assert grads[0].tolist() == [[-1.5, 2.0], [-15.0, 0.0]] and grads[1] is None
    weights = t(1.0, 3.0).requires_grad_()
    loss = recipes.get("hra")(v, rewards, nxt, weights).sum()
    assert torch.autograd.grad(loss, weights, allow_unused=True)[0] is None
    with pytest.raises(ValueError, match="K weights"):
        recipes.get("hra")(values, rewards, after, t(1.0))
