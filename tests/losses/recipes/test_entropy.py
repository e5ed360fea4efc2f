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


def test_empg() -> None:
    empg = recipes.get("empg")
    assert dict(empg.defaults) == {"k": 1.0, "k_future": 1.0, "zeta": 0.05}
    h, mask = f64([0.5, 2.5, 1.5], [4.5, 0.5, NAN]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    unit = [0.0, 0.5, 0.25, 1.0, 0.0]
    gain = [math.exp(-u) for u in unit]
    gain = [g / (sum(gain) / 5) for g in gain]
    bonus = [math.exp(-0.5), math.exp(-0.25), 0.0, 1.0, 0.0]
    raw = [g * a + 0.05 * b for g, a, b in zip(gain, [2.0, 2.0, 2.0, -1.0, -1.0], bonus, strict=True)]
    want = [r - sum(raw) / 5 for r in raw]
    out = empg(f64(2.0, -1.0), h, mask=mask)
    assert out[mask.bool()].tolist() == pytest.approx(want) and out[1, 2] == 0
    flat = empg(f64(2.0, -1.0), h[:, :2], k=0.0, zeta=0.0)
    assert flat.tolist() == [pytest.approx([1.5, 1.5]), pytest.approx([-1.5, -1.5])]
    ahead = empg(f64(0.0, 0.0), h[:, :2], k_future=2.0, zeta=1.0)
    first, second = math.exp(-2 * 0.5), 1.0
    mean = (first + second) / 4
    assert ahead[:, 0].tolist() == pytest.approx([first - mean, second - mean])
    assert not empg(f64(2.0, -1.0).requires_grad_(), h, mask=mask).requires_grad


def test_hapo_hetero() -> None:
    hapo = recipes.get("hapo-hetero")
    assert dict(hapo.defaults) == {"eps": 0.2, "quantile": 0.8, "strength": 1.0, "bound": 10.0, "limit": 5.0}
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    rewards = f64([1.0, 0.0])  # 3 tokens of one, 2 of the other: mean .6, std sqrt .24
    std = math.sqrt(0.24) + 1e-6
    good, bad = 0.4 / std, -0.6 / std
    h = f64([1.0, math.e**-2, math.e], [math.e**-1, 1.0, NAN])  # logs 0 -2 1 -1 0: sorted -2 -1 0 0 1, pivot 0
    level = [0.0, -1.0, 1.0, -0.5, 0.0]
    rho = f64([1.0, 0.7, 1.5], [1.05, 0.5, 1.0])
    out = hapo(torch.where(mask.bool(), rho.log(), NAN), rewards, h, mask=mask)
    want = [
        -good,  # h 0
        -good * 0.7,  # low entropy, but outside: advantage as it is; clip below at .6 is not reached
        -2 * good * 1.4,  # high entropy and outside: doubled, clipped at 1.4
        -bad * 0.5 * 1.05,  # low entropy and inside: halved
        -bad * 0.8,  # h 0, clipped below
        0.0,
    ]
    assert out.flatten().tolist() == pytest.approx(want) and level[1] == -1.0


def test_hapo_falls_back_and_bounds() -> None:
    hapo = recipes.get("hapo-hetero")
    mask = torch.ones(2, 40)
    mask[1, 1:] = 0
    x = torch.zeros(2, 40, dtype=F64)
    x[1, 0] = math.log(30.0)
    out = hapo(x, f64([1.0, 0.0]), torch.ones(2, 40, dtype=F64), mask=mask)  # 40 tokens against 1: -6.2 stds
    grpo = 0.5 / (math.sqrt(0.5) + 1e-6)
    assert out[0].tolist() == pytest.approx([-grpo] * 40) and out[1, 0].item() == pytest.approx(10 * grpo)
    free = hapo(x, f64([1.0, 0.0]), torch.ones(2, 40, dtype=F64), mask=mask, limit=9.0, bound=2.0)
    std = math.sqrt(40) / 41 + 1e-6
    assert free[0, 0].item() == pytest.approx(-1 / 41 / std) and free[1, 0].item() == pytest.approx(2 * 40 / 41 / std)


def test_hapo_settings_reach_their_places() -> None:
    hapo, h = recipes.get("hapo-hetero"), f64([math.e**-1, 1.0], [1.0, math.e])
    x, rewards = f64([0.7, 1.0], [1.0, 1.3]).log(), f64([0.0, 1.0])
    out = hapo(x, rewards, h, quantile=0.5, strength=0.5, eps=0.3)  # logs -1 0 0 1; rank 2 of 0..3, the pivot 0
    z = 0.5 / (0.5 + 1e-6)
    # token 0: h -1, ratio .7 outside .85..: as it is; below clip 1 - .3 * 1.5 = .55
    # token 3: h 1, outside: A 1.5, upper clip 1 + .3 * 1.5
    assert out.flatten().tolist() == pytest.approx([0.7 * z, z, -z, -1.5 * z * 1.3])
    none = hapo(x, rewards, h, quantile=0.5, strength=0.0)
    assert none.flatten().tolist() == pytest.approx([0.8 * z, z, -z, -1.2 * z])
