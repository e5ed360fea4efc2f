from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes
from diffalign.losses.recipes import credit

F64 = torch.float64
NAN = float("nan")
PARENT = torch.tensor([-1, 0, 0, 1, 1, 1, 2])


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


LEAVES = f64(NAN, NAN, NAN, 1.0, 4.0, 4.0, 8.0)  # backed up: 5.5, 3, 8


def test_tempflow_grpo() -> None:
    tempflow = recipes.get("tempflow-grpo")
    assert dict(tempflow.defaults) == {"eps": 1e-6}
    out = tempflow(LEAVES, PARENT, f64(9.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.5))
    half = 0.5 / (math.sqrt(2.0) + 1e-6)
    assert out.tolist() == pytest.approx([0.0, -2.0, 2.0, -2 * half, half, half, 0.0], rel=1e-5)
    assert tempflow(LEAVES, PARENT, torch.ones(7), eps=2.5)[1].item() == pytest.approx(-0.5)
    weight = torch.ones(7, requires_grad=True)
    assert not tempflow(LEAVES, PARENT, weight).requires_grad
    with pytest.raises(ValueError, match="weight"):
        tempflow(LEAVES, PARENT, torch.ones(6))


def test_segment_po() -> None:
    tree = recipes.get("segment-po")
    assert tree(LEAVES, PARENT).tolist() == [0.0, -2.5, 2.5, -2.0, 1.0, 1.0, 0.0]  # no std; children, not leaves
    value = f64([0.5, 0.75, 0.25], [0.1, 0.9, NAN])
    prob = f64([0.95, 0.2, 0.3, 0.9, 0.5], [0.1, 0.89, 0.99, 0.99, 0.99])
    chain = credit.segment_po_chain(value, prob, every=2)
    assert chain[0].tolist() == pytest.approx([0.0, 0.25, 0.25, 0.0, -0.5])
    assert chain[1].tolist() == pytest.approx([0.8, 0.8, 0.0, 0.0, 0.0])
    short = credit.segment_po_chain(f64([0.0, 1.0, 3.0]), torch.full((1, 6), 0.5, dtype=F64))
    assert short[0].tolist() == [1.0] * 5 + [2.0]
    assert credit.segment_po_chain(value[:1], prob[:1], threshold=0.4)[0].tolist() == [0, 0.25, 0.25, 0, 0]


def test_rad_2() -> None:
    path = torch.tensor([[1, 1, 3, 3], [2, 2, 6, -1]])
    assert recipes.get("rad-2")(LEAVES, PARENT, path).tolist() == [[-2.5, -2.5, -2.0, -2.0], [2.5, 2.5, 0.0, 0.0]]


def test_hifpo() -> None:
    hifpo = recipes.get("hifpo")
    assert dict(hifpo.defaults) == {"eps": 1e-6}
    process = f64(9.0, 6.0, 0.0, 0.0, 0.0, 3.0, 5.0)
    out = hifpo(LEAVES, process, PARENT)
    # steps 1 and 2: outcome 3 and 8 plus process 6 and 0; steps 3 to 5: 1, 4, 7
    std = math.sqrt(6.0) + 1e-6
    half = 0.5 / (0.5 + 1e-6)
    assert out.tolist() == pytest.approx([0.0, half, -half, -3 / std, 0.0, 3 / std, 0.0], abs=1e-12)
    assert hifpo(LEAVES, process, PARENT, eps=0.5)[1].item() == pytest.approx(0.5)
    assert not hifpo(LEAVES, process.requires_grad_(), PARENT).requires_grad
    with pytest.raises(ValueError, match="process"):
        hifpo(LEAVES, process[:6], PARENT)


def test_igpo_info_gain() -> None:
    igpo = recipes.get("igpo-info-gain")
    assert dict(igpo.defaults) == {"gamma": 1.0}
    belief = f64([[0.1, 0.4, 0.3, 9.0], [0.2, 0.5, 7.0, NAN]])
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]]])
    outcome = f64([1.0, 0.0])
    # turns: .3 -.1 1 and .3 0; their common mean is .3
    out = igpo(belief, outcome, mask=mask)
    assert out[0].tolist() == [pytest.approx([0.3, 0.3, 0.7]), pytest.approx([-0.3, -0.3, 0.0])]
    half = igpo(belief, outcome, mask=mask, gamma=0.5)
    assert half[0, 0].tolist() == pytest.approx([0.5 * (-0.4 + 0.35), -0.4 + 0.35, 0.7], abs=1e-12)
    whole = igpo(f64([[0.1, 0.4, 0.3]]), f64([0.7]))
    assert whole[0, 0].tolist() == pytest.approx([0.0, 0.2])
    for belief_, outcome_ in ((belief[0], outcome), (belief, outcome[0])):
        with pytest.raises(ValueError, match="belief"):
            igpo(belief_, outcome_)
    with pytest.raises(ValueError, match="mask"):
        igpo(belief, outcome, mask=torch.ones(1, 2, 4))
    assert not igpo(belief.requires_grad_(), outcome.requires_grad_(), mask=mask).requires_grad


R, V = f64([1.0, 2.0], [1.0, 2.0]), f64([0.5, 0.8], [0.5, 0.8])


def test_t_ppo() -> None:
    t_ppo = recipes.get("t-ppo")
    assert dict(t_ppo.defaults) == {"gamma": 1.0, "lam": 0.95}
    adv, returns = t_ppo(R, V, torch.tensor([True, False]))
    assert adv[0].tolist() == pytest.approx([1.3 + 0.95 * 2.0, 2.0])  # cut off: the last error is the reward
    assert adv[1].tolist() == pytest.approx([1.3 + 0.95 * 1.2, 1.2]) and torch.allclose(returns, adv + V)
    other = t_ppo(R, V, torch.tensor([True, False]), gamma=0.5, lam=0.0).advantages
    assert other[0].tolist() == pytest.approx([0.9, 1.6]) and other[1].tolist() == pytest.approx([0.9, 1.2])
    held = t_ppo(R, V, torch.tensor([True, False]), mask=torch.tensor([[1, 0], [1, 1]])).advantages
    assert held[0].tolist() == pytest.approx([1.0, 0.0])


def test_pdppo() -> None:
    pdppo = recipes.get("pdppo")
    assert dict(pdppo.defaults) == {"gamma": 1.0, "lam": 0.95}
    after = f64([0.9, 0.1], [0.1, 1.9])
    first, second = [1.3 + 0.95 * 1.2, 1.2], [0.2 + 0.95 * 1.9, 1.9]
    out = pdppo(R, V, after)
    assert out[0].tolist() == pytest.approx([first[0], second[1]])
    assert out[1].tolist() == pytest.approx([2.8 + 0.95 * 0.1, 1.2])
    assert pdppo(R, V, after, gamma=0.0, lam=0.5)[0].tolist() == pytest.approx([0.5, 1.9])
    masked = pdppo(R, V, after, mask=torch.tensor([[1, 0], [1, 1]]))
    assert masked[0].tolist() == pytest.approx([0.5, 0.0])
