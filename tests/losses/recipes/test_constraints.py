"""Constrained objectives by name, with the numbers of their papers."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes import constraints
from diffalign.losses.trackers import empty_pid

F64 = torch.float64
NAN = math.nan
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_epo() -> None:
    h = t(1, 2.5, 3).requires_grad_()
    out = recipes.get("epo")(h, 2.0)  # band 1.6 to 2.4
    assert out.tolist() == approx([-1e-3 * (1 - 0.6), -1e-3 * (2.5 - 0.1), -1e-3 * (3 - 0.6)])
    inside = recipes.get("epo")(t(1.7, 2.3), 2.0)
    assert inside.tolist() == approx([-1.7e-3, -2.3e-3])
    (grad,) = torch.autograd.grad(recipes.get("epo")(h, 2.0, penalty=3.0).sum(), h)
    assert grad.tolist() == approx([-4e-3, 2e-3, 2e-3])  # a band with a gradient: outside it pulls back
    history = t(2.0, 1.0).requires_grad_()
    assert not recipes.get("epo")(t([1, 2], [2, 1]), history).requires_grad
    script = recipes.get("epo")(t(1.2), 2.0, low=0.5, high=1.5)
    assert script.tolist() == approx([-1.2e-3])
    with pytest.raises(ValueError, match="history"):
        recipes.get("epo")(h, 0.0)


def test_constrained_rlhf() -> None:
    xi = t(0.0, math.log(3)).requires_grad_()
    kl, adv = t(1, -2), t([4, 0], [8, 4]).requires_grad_()
    returns, threshold = t(5, 1), t(3, 2)
    out = recipes.get("constrained-rlhf")(kl, adv, returns, xi, threshold=threshold)
    assert out.advantage.tolist() == [0.75 + 2 + 6, -1.5 + 3]
    assert out.dual_loss.tolist() == approx([1, -0.75]) and not out.advantage.requires_grad
    (grad,) = torch.autograd.grad(out.dual_loss.sum(), xi)
    assert grad.tolist() == approx([0.25 * 2, 0.1875 * -1])
    equal = recipes.get("constrained-rlhf")(kl, adv, returns, t(-0.5, 0.25), threshold=threshold, squash=torch.tanh)
    low, high = math.tanh(-0.5), math.tanh(0.25)
    assert equal.advantage[0].item() == approx(2 - low - high + 4 * low + 8 * high)
    assert equal.dual_loss.tolist() == approx([2 * low, -high])
    shut = recipes.get("constrained-rlhf")(kl, adv, returns, t(-1e3, -1e3), threshold=threshold)
    assert shut.advantage.tolist() == [2, -4]


def test_c_morl() -> None:
    x, adv = t(0.0, math.log(1.1), 1.0), t(1, 2, -1)
    returns = t(2, 5)
    out = recipes.get("c-morl")(x, adv, returns=returns)
    ppo = [-1, -2.2, math.e]

    def barrier(rho: float) -> float:
        return -sum(math.log(j * (rho - 0.9)) for j in (2, 5)) / 20 / 2

    assert out.tolist() == approx([p + barrier(r) for p, r in zip(ppo, (1, 1.1, 1.2), strict=True)])
    assert recipes.get("c-morl")(x, adv, returns=returns[:0]).tolist() == approx(ppo)
    sharp = recipes.get("c-morl")(t(0.0), t(0.0), returns=t(2.0), share=0.5, t=4.0)
    assert sharp.item() == approx(0)
    wide = recipes.get("c-morl")(t(1.0), t(1.0), returns=t(1.0), eps=0.5, share=0.5)
    assert wide.item() == approx(-1.5)
    low = recipes.get("c-morl")(t(-1.0), t(1.0), returns=t(1.0))  # clipped at .8, below the floor: the barrier's end
    assert low.item() == approx(-math.exp(-1) + math.log(1000) / 20)
    out = recipes.get("c-morl")(t(-1.0), t(0.0), returns=t(1.0), eps=0.5, share=0.1)
    assert out.item() == approx(-math.log(0.4) / 20)
    for bad in ({"share": 1.0}, {"share": 0.0}):
        with pytest.raises(ValueError, match="share"):
            recipes.get("c-morl")(x, adv, returns=returns, **bad)
    with pytest.raises(ValueError, match="returns"):
        recipes.get("c-morl")(x, adv, returns=t(1, -1))


def test_c_morl_pulls_harder_near_the_floor_and_not_in_padding() -> None:
    x = t([0.0, NAN], [math.log(0.95), 40.0]).requires_grad_()
    mask, returns = torch.tensor([[1, 0], [1, 0]]), t(2.0).requires_grad_()
    out = recipes.get("c-morl")(x, t(0.0, 0.0), returns=returns, mask=mask)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad[0].tolist() == approx([-1 / (20 * 0.1), 0]) and grad[1].tolist() == approx([-0.95 / (20 * 0.05), 0])
    assert out[:, 1].tolist() == [0, 0]
    assert torch.autograd.grad(recipes.get("c-morl")(x, t(0.0, 0.0), returns=returns, mask=mask).sum(), returns,
                               allow_unused=True)[0] is None  # fmt: skip
    far = torch.tensor([50.0, -50.0], requires_grad=True)
    assert torch.autograd.grad(recipes.get("c-morl")(far, t(1.0, 1.0), returns=t(1.0)).sum(), far)[0].isfinite().all()


def test_c_morl_starts_from_the_front() -> None:
    scores = t([0, 9], [1, 8], [4, 7], [9, 0], [3, 3], [NAN, 20])  # the fifth is dominated, the last unmeasured
    assert constraints.c_morl_starts(scores, n=3).tolist() == [0, 3, 2]
    assert constraints.c_morl_starts(scores, n=9).tolist() == [0, 3, 2, 1]
    assert constraints.c_morl_starts(scores[5:], n=1).tolist() == []
    with pytest.raises(ValueError, match="n must be positive"):
        constraints.c_morl_starts(scores, n=0)


def test_safe_kl() -> None:
    kl = t(0.5, 2).requires_grad_()
    out = recipes.get("safe-kl")(t([1, 2], [3, 2]), kl, ema=0.7, threshold=0.4, entropy=1.9)
    assert out.penalty.tolist() == approx([0.1 * 0.09 * x for x in (0.5, 2)])
    (grad,) = torch.autograd.grad(out.penalty.sum(), kl)
    assert grad.tolist() == approx([0.009, 0.009])  # it is the tensor that is charged for
    low = -0.3 * math.log((math.exp(-1 / 0.3) + math.exp(-3 / 0.3)) / 2)
    assert out.value.tolist() == approx([low, 2])

    def gain(**change: float) -> float:
        settings = {"ema": 0.7, "threshold": 0.4, "entropy": 1.9, **change}
        return recipes.get("safe-kl")(t([1]), t(1), **settings).penalty.item() / 0.009

    assert gain(entropy=0.4) == approx(4) and gain(entropy=9.9) == approx(0.5) and gain(threshold=0.8) == 0
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in (("ema", 0.7), ("threshold", 0.4), ("entropy", 1.9))}
    assert not recipes.get("safe-kl")(t([1]), t(1), **tensors).penalty.requires_grad
    with pytest.raises(ValueError, match="entropy"):
        gain(entropy=-1.0)


def test_the_threshold_of_safe_kl() -> None:
    state, calm = constraints.safe_threshold(empty_pid(), 0.001, phase=1.2)
    assert calm.item() == approx(0.36)
    state, fast = constraints.safe_threshold(state, 0.101, phase=1.0)
    assert fast.item() == approx(0.3 + 0.36 * 0.1) and state.error.item() == approx(0.1)
    assert constraints.safe_threshold(empty_pid(), 5.0, phase=1.5)[1].item() == approx(0.6)
    assert constraints.safe_threshold(empty_pid(), -5.0, phase=0.8)[1].item() == approx(0.1)
    with pytest.raises(ValueError, match="phase"):
        constraints.safe_threshold(empty_pid(), 0.0, phase=0.0)
