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


def test_micro() -> None:
    scores_w, scores_l, router = t([2.0, 1.0]), t([1.0, 3.0]), t([0.0, math.log(3)]).requires_grad_()
    loss = recipes.get("micro")(scores_w, scores_l, router)
    assert loss.item() == pytest.approx(-math.log(0.25 / (1 + math.exp(-1)) + 0.75 / (1 + math.exp(2))))
    assert torch.autograd.grad(loss.sum(), router)[0][0, 0] < 0  # the first head explains: more weight


def test_rpr_context() -> None:
    scores_w, scores_l = t([2.0, 1.0]).requires_grad_(), t([1.0, 3.0])
    prior = t([0.25, 0.75]).log().requires_grad_()
    loss = recipes.get("rpr-context")(scores_w, scores_l, prior)
    assert loss.item() == pytest.approx(-math.log(0.25 / (1 + math.exp(-1)) + 0.75 / (1 + math.exp(2))))
    grads = torch.autograd.grad(loss.sum(), (scores_w, prior), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is None  # p(context | prompt) is given


def test_ipl() -> None:
    q = t([[1.0, 2.0]], [[0.5, 9.0]])
    v, v_next = t([[0.0, 3.0]], [[1.0, 9.0]]), t([[1.0, 0.0]], [[1.0, 9.0]])
    mask = torch.tensor([[[1, 1]], [[1, 0]]])
    out = recipes.get("ipl")(q, v, v_next, mask=mask, gamma=0.5)
    # r: .5, 2 | 0; over three steps
    assert out.q.item() == pytest.approx(softplus(-2.5) + 0.5 * (0.25 + 4 + 0) / 3)
    assert torch.allclose(out.v, t([[0.7 * 1, 0.3 * 1]], [[0.3 * 0.25, 0.0]]))
    world = recipes.get("ipl")(q, v, v_next, mask=mask, gamma=0.5, reward_l2=3.0, level=0.75)
    assert world.q.item() == pytest.approx(softplus(-2.5) + 4.25) and world.v[0, 0, 0].item() == pytest.approx(0.75)
    bare = recipes.get("ipl")(q, v, 0 * v_next, gamma=0.0, reward_l2=0.0)
    assert bare.q.item() == pytest.approx(softplus(-(3 - 9.5)))  # no value: Bradley-Terry on sums
    whole = recipes.get("ipl")(q, v, v_next)
    r = [1 - 0.99, 2.0, 0.5 - 0.99, 9 * 0.01]
    assert whole.q.item() == pytest.approx(softplus(-(r[0] + r[1] - r[2] - r[3])) + 0.5 * sum(x * x for x in r) / 4)


def test_ipl_trains_the_critic_and_the_value_apart() -> None:
    q, v, v_next = (torch.randn(2, 3, 4, dtype=D, requires_grad=True) for _ in range(3))
    out = recipes.get("ipl")(q, v, v_next)
    for loss, learns, rests in ((out.q, q, (v, v_next)), (out.v, v, (q, v_next))):
        grads = torch.autograd.grad(loss.sum(), (learns, *rests), allow_unused=True, retain_graph=True)
        assert grads[0].abs().sum() > 0 and grads[1] is None and grads[2] is None


def test_hindsight_prior() -> None:
    rewards, share = t([[1.0, 3.0]], [[2.0, 0.0]]), t([[0.5, 0.5]], [[0.25, 0.75]])
    loss = recipes.get("hindsight-prior")(rewards, share, weight=2.0)
    # returns 4 and 2; pulls (1 - 2)^2, (3 - 2)^2, (2 - .5)^2, (0 - 1.5)^2
    assert loss.item() == pytest.approx(softplus(-2) + 2 * (1 + 1 + 2.25 + 2.25) / 4)
    mask = torch.tensor([[[1, 1]], [[1, 0]]])
    padded = torch.where(mask.bool(), rewards, math.nan)
    assert recipes.get("hindsight-prior")(padded, share, weight=2.0, mask=mask).item() == pytest.approx(
        softplus(-2) + 2 * (1 + 1 + 2.25) / 3
    )
    exact = recipes.get("hindsight-prior")(t([[1.0, 3.0]], [[2.0, 0.0]]), t([[0.25, 0.75]], [[1.0, 0.0]]), weight=9.0)
    assert exact.item() == pytest.approx(softplus(-2))
    one = torch.tensor([[[1, 0]], [[0, 0]]])  # a single step: its pull is not halved
    alone = recipes.get("hindsight-prior")(rewards, share, weight=2.0, mask=one)
    assert alone.item() == pytest.approx(softplus(-1) + 2 * 0.25)
    nothing = recipes.get("hindsight-prior")(rewards, share, weight=2.0, mask=0 * one)
    assert nothing.item() == pytest.approx(math.log(2))
    learned = share.clone().requires_grad_()
    loss = recipes.get("hindsight-prior")(rewards.clone().requires_grad_(), learned, weight=1.0)
    assert torch.autograd.grad(loss.sum(), learned, allow_unused=True)[0] is None
    r = rewards.clone().requires_grad_()
    pull = recipes.get("hindsight-prior")(r, share, weight=1.0) - recipes.get("hindsight-prior")(r, share, weight=0.0)
    (g,) = torch.autograd.grad(pull.sum(), r)
    assert torch.allclose(g, t([[-0.5, 0.5]], [[0.75, -0.75]]))  # the return in the target is held
