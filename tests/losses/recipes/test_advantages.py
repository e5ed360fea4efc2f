from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import group_advantage, recipes

F64 = torch.float64
NAN = float("nan")


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


R = f64([1.0, 2.0, 3.0, 6.0])
STD = math.sqrt(14 / 3) + 1e-6
Z = [-2 / STD, -1 / STD, 0.0, 3 / STD]


def test_dr_irl() -> None:
    out = recipes.get("dr-irl")(torch.cat([R, R]), f64(2.0, 0.5), f64(3.0, 0.0))
    assert out.tolist() == [pytest.approx([6 * z for z in Z]), [0.0] * 4]
    hard = f64(2.0, 0.5).requires_grad_()
    assert not recipes.get("dr-irl")(torch.cat([R, R]), hard, hard).requires_grad
    with pytest.raises(ValueError, match="hardness"):
        recipes.get("dr-irl")(R, f64(-1.0), f64(1.0))


def test_ngrpo() -> None:
    ngrpo = recipes.get("ngrpo")
    assert dict(ngrpo.defaults) == {"n": 1, "r_max": 1.0, "eps_low": 0.16, "eps_high": 0.24}
    wrong = ngrpo(torch.zeros(8, dtype=F64), torch.zeros(1, 8, dtype=F64))
    assert wrong.tolist() == pytest.approx([1 / 3] * 8, abs=1e-5)  # advantage -1/sqrt(G + 1), not 0
    assert ngrpo(torch.zeros(4, dtype=F64), torch.ones(1, 4, dtype=F64)).tolist() == [0.0] * 4
    x, rewards = f64(1.5, 0.5).log(), f64([1.0, 0.0])
    std = math.sqrt(1 / 3) + 1e-6  # of 1, 0 and the virtual 1: mean 2/3
    out = ngrpo(x, rewards)
    assert out.tolist() == pytest.approx([-1 / 3 / std * 1.24, 2 / 3 / std * 0.84])
    two = ngrpo(0 * x, rewards, n=2, r_max=4.0)
    mean, dev = 9 / 4, math.sqrt((1.25**2 + 2.25**2 + 2 * 1.75**2) / 3) + 1e-6
    assert two.tolist() == pytest.approx([(mean - 1) / dev, mean / dev])


def test_bnpo() -> None:
    bnpo = recipes.get("bnpo")
    assert dict(bnpo.defaults) == {"floor": 1e-6}
    rewards = f64([0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0], [0.5, 0.25, 0.25, 0.2])
    # rates .25 .5 .75 .3: mean .45, unbiased variance .05166667, so a = 1 + .45 s/3 with s = .2475/.05166667 - 1
    s = 0.2475 / 0.155 * 3 - 1
    a, b = 1 + 0.45 * s / 3, 1 + 0.55 * s / 3
    norm = math.gamma(a) * math.gamma(b) / math.gamma(a + b)
    density = [p ** (a - 1) * (1 - p) ** (b - 1) / norm for p in (0.25, 0.5)]
    out = bnpo(rewards)
    assert out[0].tolist() == pytest.approx([-0.25 / density[0]] * 2 + [0.75 / density[0], -0.25 / density[0]])
    assert out[1, 0].item() == pytest.approx(0.5 / density[1])
    assert bnpo(rewards, floor=5.0)[1, 0].item() == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bnpo(2 * rewards)


def test_optimal_advantage() -> None:
    assert recipes.get("optimal-advantage")(R).tolist() == [[-5.0, -4.0, -3.0, 0.0]]


def test_contrastive_rewards() -> None:
    contrast = recipes.get("contrastive-rewards")
    out = contrast(torch.cat([R, R, R]), f64([1.0, 3.0, NAN], [5.0, 7.0, 0.0], [NAN, NAN, float("inf")]))
    assert out.tolist() == [[-1.0, 0.0, 1.0, 4.0], [-3.0, -2.0, -1.0, 2.0], [0.0] * 4]
    assert torch.allclose(group_advantage(contrast(R, f64([9.0]))), group_advantage(R), atol=1e-12)
    assert not contrast(R, f64([9.0]).requires_grad_()).requires_grad


def test_pipo() -> None:
    pipo = recipes.get("pipo")
    assert dict(pipo.defaults) == {"lam": 0.1}
    history = f64(0.1, 0.3, 0.5)  # mean .3, unbiased std .2
    unit = [-2 / 1.5, -1 / 1.5, 0.0, 2.0]
    assert pipo(R, 0.6, history)[0].tolist() == pytest.approx([1.5 * a for a in unit], rel=1e-4)
    assert pipo(R, 0.1, history)[0].tolist() == pytest.approx([-0.1 * a for a in unit], rel=1e-4)
    assert pipo(R, 0.4, history)[0].tolist() == pytest.approx([0.5 * a for a in unit], rel=1e-4)
    assert pipo(R, -0.1, history)[0].tolist() == pytest.approx([-0.2 * a for a in unit], rel=1e-4)
    assert not pipo(R, torch.tensor(0.4, requires_grad=True), history.clone()).requires_grad
    assert not pipo(R, 0.4, history.clone().requires_grad_()).requires_grad
    assert pipo(R, 0.3, history).abs().max() < 1e-9  # nothing gained, nothing learnt again
    assert pipo(R, torch.tensor(0.1), history, lam=0.0).abs().max() == 0
    assert pipo(R, 0.6, history).abs().sum().item() == pytest.approx(1.5 * 4, rel=1e-4)
    assert pipo(R, 0.6, f64(0.6, 0.6)).abs().max() == 0 and pipo(R, 0.5, f64(0.2, 0.2))[0, 3] == pytest.approx(6e5)
    for bad in (f64(0.3), f64([0.1, 0.2])):
        with pytest.raises(ValueError, match="history"):
            pipo(R, 0.6, bad)
    with pytest.raises(ValueError, match="lam"):
        pipo(R, 0.6, history, lam=-1.0)


def test_adora() -> None:
    adora = recipes.get("adora")
    assert dict(adora.defaults) == {"amplify": 2.0, "threshold": 0.5}
    success = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    out = adora(torch.cat([R, R]), success)
    assert out[0].tolist() == pytest.approx([2 * z for z in Z]) and out[1].tolist() == pytest.approx(Z)
    assert adora(R, success[1:], threshold=0.75, amplify=3.0)[0].tolist() == pytest.approx([3 * z for z in Z])
    holed = adora(f64([1.0, 2.0, 3.0, NAN]), success[1:])  # 2 of 3 usable ones
    assert holed[0, 0].item() == pytest.approx(-1.0, abs=1e-5)
    half = adora(f64([1.0, NAN, 3.0, NAN]), success[1:])  # 1 of 2
    assert half[0, 0].item() == pytest.approx(-2 / math.sqrt(2), abs=1e-5)
    with pytest.raises(ValueError, match="amplify"):
        adora(R, success[1:], amplify=0.0)
    with pytest.raises(ValueError, match="shape"):
        adora(R, success)


def test_poise() -> None:
    poise = recipes.get("poise")
    out = poise(f64([1.0, 4.0]), f64([0.5, 3.0]))
    assert out.tolist() == [[-2.0, 3.5]]  # each minus the probe of the other
    assert poise(f64([1.0, 4.0]), f64([1.0, 4.0])).tolist() == [[-3.0, 3.0]]
    for r, probe in ((R, R), (f64([1.0, 4.0]), f64([1.0]))):
        with pytest.raises(ValueError, match=r"\(B, 2\)"):
            poise(r, probe)


def test_remax() -> None:
    remax = recipes.get("remax")
    assert dict(remax.defaults) == {"bound": 5.0}
    assert remax(f64([1.0, 9.0, -8.0]), f64(2.5)).tolist() == [[-1.5, 5.0, -5.0]]
    assert remax(f64([1.0, 9.0]), f64([2.0, 9.0]), bound=0.5).tolist() == [[-0.5, 0.0]]
