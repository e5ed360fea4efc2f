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


def gradient(loss, *inputs: object, **kwargs: object) -> Tensor:
    x = inputs[0].detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, *inputs[1:], **kwargs).sum(), x)[0]


def test_rl_plus() -> None:
    rl_plus = recipes.get("rl-plus")
    assert dict(rl_plus.defaults) == {"gamma": 0.5}
    p, old = f64([0.36, 0.9], [0.36, 0.9]), f64([0.2, 0.8], [0.2, 1.0])
    out = rl_plus(p.log(), old.log(), f64(1.0, -2.0), torch.tensor([False, True]))
    assert out[0].tolist() == pytest.approx([-1.8, -1.125])
    mixed = [0.72 / (0.2 + 0.6), 1.8 / (1.0 + 1.0)]
    assert out[1].tolist() == pytest.approx([2 * 0.8 * mixed[0], 2 * math.sqrt(0.1) * mixed[1]])
    plain = rl_plus(p.log(), old.log(), f64(1.0, -2.0), torch.tensor([False, True]), gamma=0.0)
    assert plain[1].tolist() == pytest.approx([2 * mixed[0], 2 * mixed[1]])
    grad = gradient(rl_plus, p.log(), old.log(), f64(1.0, -2.0), torch.tensor([False, True]))
    assert torch.allclose(grad, out, atol=1e-12)  # the focal factor has none of it


def test_rl_plus_pads_and_takes_densities_without_the_factor() -> None:
    rl_plus, mask = recipes.get("rl-plus"), torch.tensor([[1, 0]])
    out = rl_plus(f64([-0.5, NAN]), f64([-0.7, NAN]), f64(1.0), torch.tensor([True]), mask=mask)
    assert torch.isfinite(out).all() and out[0, 1] == 0
    density = rl_plus(f64([3.0]), f64([2.0]), f64(1.0), torch.tensor([True]), gamma=0.0)
    assert density.item() == pytest.approx(-2 * math.exp(3.0) / (math.exp(2.0) * 1.5 + 0.5))
    with pytest.raises(ValueError, match="density"):
        rl_plus(f64([3.0]), f64([2.0]), f64(1.0), torch.tensor([True]))
    old = f64([-0.7]).requires_grad_()
    assert not rl_plus(f64([-0.5]), old, f64(1.0).requires_grad_(), torch.tensor([True])).requires_grad


def test_omniopd() -> None:
    omni = recipes.get("omniopd")
    assert dict(omni.defaults) == {"prior": 1.0, "prior_mean": 0.5, "kl_coef": 0.01}
    x, r = f64([0.5, -0.2, 0.3]), f64([1.0, 1.0, -0.5])
    audited, similarity = torch.tensor([[True, True, False]]), f64([0.9, 0.1, 0.8])
    reward = (0.5 + 1.8) / 4
    away = 0.01 * (math.exp(0.5) - 0.5 - 1)
    assert omni(x, r, similarity, audited)[0].tolist() == pytest.approx([-reward * 0.5, reward * 0.2, away])
    exact = omni(x, r, f64([1.0]), audited, prior=0.0)
    assert exact[0, :2].tolist() == pytest.approx([-0.5, 0.2])
    strong = omni(x, r, similarity, audited, prior=3.0, prior_mean=0.2, kl_coef=0.0)
    assert strong[0].tolist() == pytest.approx([-0.4 * 0.5, 0.4 * 0.2, 0.0])
    padded = omni(x, f64([1.0, 1.0, NAN]), similarity, audited, mask=torch.tensor([[1, 1, 0]]))
    assert padded[0, 2] == 0
    with pytest.raises(ValueError, match="prior"):
        omni(x, r, similarity, audited, prior=-1.0)
    sims = similarity.clone().requires_grad_()
    assert not omni(x, r, sims, audited).requires_grad


def test_critique_grpo() -> None:
    critique = recipes.get("critique-grpo")
    assert dict(critique.defaults) == {"gamma": 0.1}
    x, q = f64([1.5, 1.0], [0.5, 1.0], [7.0, 7.0]).log(), f64([0.9, 0.9], [0.9, 0.9], [0.3, 0.1]).log()
    rewards, refined = f64([0.0, 0.0, 3.0]), torch.tensor([[False, False, True]])
    out = critique(x, q, rewards, refined)
    assert out.tolist() == [
        pytest.approx([1.5, 1.0]),
        pytest.approx([0.5, 1.0]),
        pytest.approx([-2 * 0.75, -1.0]),
    ]  # mean 1, no std, no clip
    assert critique(x, q, rewards, refined, gamma=0.3)[2, 0].item() == pytest.approx(-1.0)
    padded = critique(x, q, rewards, refined, mask=torch.tensor([[1, 1], [1, 0], [0, 1]]))
    assert padded[1, 1] == 0 and padded[2].tolist() == pytest.approx([0.0, -1.0])
    with pytest.raises(ValueError, match="refined"):
        critique(x, q, rewards, refined[:, :2])


def test_famo2o() -> None:
    famo2o = recipes.get("famo2o")
    assert dict(famo2o.defaults) == {"max_weight": 100.0}
    logp, adv = f64(-1.0, -2.0, -0.5, -1.0), f64(0.5, 0.5, -1.0, 9.0)
    out = famo2o(logp, adv, f64(0.0, 2.0, 1.0, 1.0))
    assert out.tolist() == pytest.approx([1.0, 2 * math.e, 0.5 * math.exp(-1.0), 100.0])
    grad = gradient(famo2o, logp, adv, f64(0.0, 2.0, 1.0, 1.0))
    assert grad.tolist() == pytest.approx([-1.0, -math.e, -math.exp(-1.0), -100.0])
    rows = famo2o(logp[:2, None].expand(2, 2), adv[:2], f64(0.0, 2.0), mask=torch.tensor([[1, 0], [1, 1]]))
    assert rows.tolist() == [pytest.approx([1.0, 0.0]), pytest.approx([2 * math.e] * 2)]
    with pytest.raises(ValueError, match="coefficient"):
        famo2o(logp, adv, f64(-1.0, 0.0, 0.0, 0.0))
    knob = f64(0.0, 2.0, 1.0, 1.0).requires_grad_()
    assert not famo2o(logp, adv.clone().requires_grad_(), knob).requires_grad
