from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

D = torch.float64
R = torch.tensor([[0.3, 2.0, -1.0, 1.0], [5.0, 5.0, 5.0, 5.0]], dtype=D)
X = torch.tensor([[1.0, 4.0, -2.0, 0.0], [1.0, 2.0, 3.0, 4.0]], dtype=D)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_superhf() -> None:
    kl = torch.tensor([[9.0, 3.0, 9.0, 9.0], [-1.0, 9.0, 9.0, 9.0]], dtype=D)
    nll = X.abs() + 1
    assert recipes.get("superhf")(R, nll, kl).tolist() == [5, 2]  # the class default leaves the KL out
    assert recipes.get("superhf")(R, nll, kl, kl_coef=0.4).tolist() == pytest.approx([6.2, 2.0])
    assert recipes.get("superhf")(R, nll, kl, spread_coef=0.5).tolist() == pytest.approx([5.1, 2.25])
    assert recipes.get("superhf")(R * math.nan, nll, kl).tolist() == [0, 0]
    x = nll.requires_grad_()
    (g,) = torch.autograd.grad(recipes.get("superhf")(R, x, kl).sum(), x)
    assert g.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_rso() -> None:
    cold = recipes.get("rso")(R, X, generator=gen(), n=4, temperature=1e-6)
    # accepted by reward: 2, 1, .3, -1 with log-ratios 4, 0, 1, -2; equal rewards make no pairs
    assert cold[0].tolist() == pytest.approx([1 - 0.05 * 4, 1 - 0.05 * 3]) and cold[1].tolist() == [0, 0]
    steep = recipes.get("rso")(R, X, generator=gen(), n=4, temperature=1e-6, beta=1.0)
    assert steep[0].tolist() == [0, 0]  # past the hinge
    hot = recipes.get("rso")(R, X, generator=gen(), n=4, temperature=1e9)
    assert hot[0].tolist() == pytest.approx([1 - 0.05 * 3, 1 + 0.05 * -2])  # in order: the second of each pair wins
    few = recipes.get("rso")(torch.where(R < 0, math.nan, R), X, generator=gen(), n=4, temperature=1e-6)
    assert few[0].tolist() == pytest.approx([0.8, 0.0])
    wide = torch.arange(8.0)[None].expand(2000, -1)
    out = recipes.get("rso")(wide, wide.clone(), generator=gen())
    assert out.shape == (2000, 4)
    with pytest.raises(ValueError, match="even"):
        recipes.get("rso")(R, X, generator=gen(), n=3)


def test_rso_accepts_at_half_a_nat() -> None:
    rewards = torch.tensor([[0.0, 1.0, 1.0]]).expand(20_000, -1)
    out = recipes.get("rso")(rewards, torch.zeros(20_000, 3), generator=gen(), n=2)
    paired = (out > 0).float().mean().item()  # a pair only if the 0 was accepted beside the first 1, in turn one
    assert paired == pytest.approx(math.exp(-2), abs=0.01)


def test_unified_reward() -> None:
    scores, wins = torch.tensor([[10.0, 9.0, 8.0, 9.5]]), torch.tensor([[0.75, 0.25, 0.0, 0.5]])
    assert recipes.get("unified-reward")(scores, wins).indices.tolist() == [[0, 2]]
    backwards = recipes.get("unified-reward")(-scores, wins)
    assert backwards.weight.tolist() == [[0, 0]]  # the winner scores lower: no pair


def test_anyprefer() -> None:
    out = recipes.get("anyprefer")(R)
    assert out.indices[0].tolist() == [1, 2] and out.weight.tolist() == [[1, 1], [0, 0]]
    near = torch.tensor([[0.0, 1e-3]])
    assert recipes.get("anyprefer")(near).weight.tolist() == [[1, 1]]


def test_west_of_n() -> None:
    out = recipes.get("west-of-n")(R)
    assert out.indices[0].tolist() == [1, 2] and out.weight.tolist() == [[1, 1], [0, 0]]
    sure = 1 / (1 + math.exp(-3))  # the gap is 3
    assert recipes.get("west-of-n")(R, confidence=sure - 1e-4).weight[0].tolist() == [1, 1]
    assert recipes.get("west-of-n")(R, confidence=sure + 1e-4).weight[0].tolist() == [0, 0]
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match="confidence"):
            recipes.get("west-of-n")(R, confidence=confidence)


def test_rlp() -> None:
    rewards = torch.tensor([[0.0, 1.0], [5.0, 2.0], [1.0, 1.0], [0.0, 2.0], [math.nan, 1.0]])
    out = recipes.get("rlp")(rewards, keep=2)
    assert out.keep.tolist() == [False, True, False, True, False] and out.indices[1].tolist() == [0, 1]
    high = torch.tensor([[9.0, 8.0], [0.0, 2.0]])
    assert recipes.get("rlp")(high, keep=1).keep.tolist() == [False, True]
    assert recipes.get("rlp")(rewards, keep=5).keep.tolist() == [True, True, False, True, False]


def test_implicit_po() -> None:
    yes, no = torch.tensor([[0.0, 5.0, 1.0]], dtype=D), torch.tensor([[1.0, 6.5, -1.0]], dtype=D)
    x = torch.tensor([[1.0, 3.0, 6.0]], dtype=D)  # judged -1, -1.5, 2: the third against the second
    assert recipes.get("implicit-po")(yes, no, x).item() == pytest.approx(softplus(-0.3))
    assert recipes.get("implicit-po")(yes, no, x, beta=1.0).item() == pytest.approx(softplus(-3))


def test_critic_v() -> None:
    x = X.clone().requires_grad_()
    loss = recipes.get("critic-v")(R, x)
    assert loss.tolist() == pytest.approx([softplus(-0.6), 0])
    assert recipes.get("critic-v")(R, x, beta=1.0)[0].item() == pytest.approx(softplus(-6))
    (g,) = torch.autograd.grad(loss.sum(), x)
    pull = 0.1 / (1 + math.exp(0.6))
    assert g[0].tolist() == pytest.approx([0, -pull, pull, 0]) and (g[1] == 0).all()


def test_self_consuming() -> None:
    rewards = torch.tensor([[0.0, 1.0]]).expand(20_000, -1)
    share = recipes.get("self-consuming")(rewards, generator=gen()).indices.float().mean().item()
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=0.012)
    cold = recipes.get("self-consuming")(rewards, temperature=0.25, generator=gen())
    assert cold.indices.float().mean().item() == pytest.approx(1 / (1 + math.exp(-4)), abs=0.012)
    assert cold.indices.shape == (20_000, 1)


def test_pf_ppo() -> None:
    out = recipes.get("pf-ppo")(R)
    assert out.indices[0].tolist() == [1, 2]
    assert out.weight.tolist() == [[1, 1], [1, 1]]  # each prompt has its own extremes, and equal rewards stay
    assert recipes.get("pf-ppo")(R * math.nan).weight.tolist() == [[0, 0], [0, 0]]
