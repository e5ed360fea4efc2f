from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import policy_divergence as P

F64 = torch.float64
BOTH = pytest.mark.parametrize("loss", [P.dppo_tv, P.dppo_kl])


def kept(loss, p_old: float, p: float, adv: float, **settings: float) -> bool:
    """Whether a token that went from one probability to another has a gradient."""
    x = torch.tensor([math.log(p / p_old)], dtype=F64, requires_grad=True)
    value = loss(x, torch.tensor([adv], dtype=F64), logp=torch.tensor([math.log(p)], dtype=F64), **settings)
    return bool(torch.autograd.grad(value.sum(), x)[0] != 0)


@pytest.mark.parametrize(
    ("p", "adv", "expected"), [(0.59, 1, True), (0.61, 1, False), (0.1, 1, True), (0.41, -1, True), (0.39, -1, False),
                               (0.9, -1, True)],
)  # fmt: skip
def test_total_variation_bounds_the_change_along_the_advantage(p: float, adv: float, expected: bool) -> None:
    assert kept(P.dppo_tv, 0.5, p, adv, eps_low=0.1, eps_high=0.1) is expected


def test_both_sides_have_their_range() -> None:
    assert kept(P.dppo_tv, 0.5, 0.65, 1, eps_low=0.1, eps_high=0.2)
    assert kept(P.dppo_tv, 0.5, 0.35, -1, eps_low=0.2, eps_high=0.1)
    assert kept(P.dppo_tv, 0.5, 0.69, 1) and not kept(P.dppo_tv, 0.5, 0.71, 1) and not kept(P.dppo_tv, 0.5, 0.29, -1)


def bernoulli(q: float, p: float) -> float:
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


@pytest.mark.parametrize("p", [0.55, 0.7, 0.9])
def test_the_kl_is_that_of_this_token_or_another(p: float) -> None:
    limit = bernoulli(0.5, p)
    assert kept(P.dppo_kl, 0.5, p, 1, eps_low=0.0, eps_high=limit * 1.001)
    assert not kept(P.dppo_kl, 0.5, p, 1, eps_low=9.0, eps_high=limit * 0.999)
    assert kept(P.dppo_kl, 0.5, p, -1, eps_low=0.0)  # it moves back
    assert not kept(P.dppo_kl, 0.5, 1 - p, -1, eps_low=limit * 0.999, eps_high=9.0)
    assert kept(P.dppo_kl, 0.5, 1 - p, 1, eps_high=0.0, eps_low=0.0)


def call(loss, x: Tensor, adv: Tensor, **settings: object) -> Tensor:
    found: Tensor = loss(x, adv, logp=torch.full_like(x, -3.0), eps_low=1.0, **settings)
    return found


@BOTH
def test_the_weight_is_truncated_and_detached(loss) -> None:
    x = torch.tensor([5.0, 0.3], dtype=F64, requires_grad=True)
    adv = torch.ones(2, dtype=F64, requires_grad=True)
    out = call(loss, x, adv, bound=4.0) if loss is P.dppo_tv else call(loss, x, adv, bound=4.0, eps_high=9.0)
    grads = torch.autograd.grad(out.sum(), (x, adv), allow_unused=True)
    assert grads[0].tolist() == pytest.approx([-4.0, -math.exp(0.3)]) and grads[1] is None
    far = call(loss, torch.tensor([9.0], dtype=F64), torch.ones(1, dtype=F64), eps_high=99.0)
    assert far.item() == pytest.approx(-20 * 9.0)


@BOTH
def test_masks_and_bad_settings(loss) -> None:
    x = torch.tensor([[0.1, float("nan")]], dtype=F64, requires_grad=True)
    logp = torch.tensor([[-1.0, float("nan")]], dtype=F64, requires_grad=True)
    out = loss(x, torch.ones(1, dtype=F64), logp=logp, mask=torch.tensor([[1, 0]]))
    grads = torch.autograd.grad(out.sum(), (x, logp), allow_unused=True)
    assert out[0, 1] == 0 and grads[0][0].tolist() == pytest.approx([-math.exp(0.1), 0.0]) and grads[1] is None
    for bad in ({"eps_low": -0.1}, {"eps_high": -0.1}, {"bound": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(torch.zeros(2), torch.zeros(2), logp=torch.zeros(2), **bad)
    with pytest.raises(ValueError, match="logp"):
        loss(torch.zeros(2), torch.zeros(2), logp=torch.zeros(3))


def test_certain_tokens_are_finite_and_defaults_are_verls() -> None:
    assert P.dppo_kl.__kwdefaults__ == P.dppo_tv.__kwdefaults__ == {
        "eps_low": 0.2, "eps_high": None, "bound": 20.0, "mask": None,
    }  # fmt: skip
    assert not kept(P.dppo_kl, 0.5, 1.0, 1) and not kept(P.dppo_kl, 1.0, 0.5, -1)
    assert kept(P.dppo_kl, 1.0, 0.5, -1, eps_low=9.0) and kept(P.dppo_kl, 0.5, 1.0, 1, eps_high=9.0)
