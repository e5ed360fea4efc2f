from __future__ import annotations

import inspect
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from diffalign.losses import policy
from diffalign.losses import policy_off as P

F64 = torch.float64
NAN = float("nan")
GAP = torch.tensor([0.3, -0.4, 0.0], dtype=F64)
LOSSES = [P.shaped, partial(P.mixture, gap=GAP), P.awr]


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gradient(loss, x: Tensor, adv: Tensor, **kwargs: object) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, adv, **kwargs).sum(), x)[0]


def test_shaped_by_hand() -> None:
    p = f64(0.3, 0.1, 0.9)
    adv = f64(2.0, -1.0, 1.0)
    assert P.shaped(p.log(), adv).tolist() == pytest.approx([-2 * 0.3 / 0.4, 0.5, -0.9])
    assert gradient(P.shaped, p.log(), adv).tolist() == pytest.approx([-2 * 0.03 / 0.16, 0.25, -0.09])
    assert P.shaped(f64(math.log(0.5)), f64(1.0), gamma=0.5).item() == pytest.approx(-0.5)


def test_shaped_pulls_most_where_q_is_gamma_and_not_at_all_for_a_small_gamma() -> None:
    x = torch.linspace(-8, 2, 1001, dtype=F64)
    for gamma in (0.1, 0.4):
        pull = -gradient(partial(P.shaped, gamma=gamma), x, torch.ones(1001, dtype=F64))
        assert x[pull.argmax()].item() == pytest.approx(math.log(gamma), abs=0.01)
    assert gradient(partial(P.shaped, gamma=1e-12), f64(-0.5), f64(1.0)).abs().item() < 1e-11


def test_mixture_in_probabilities() -> None:
    p, old, omega = f64(0.3, 0.6, 0.9), f64(0.2, 0.7, 0.5), f64(0.8, 0.4, 0.5)
    adv = f64(2.0, -1.0, 3.0)
    out = P.mixture((p / old).log(), adv, gap=(old / omega).log())
    assert torch.allclose(out, -adv * 2 * p / (old + omega), atol=1e-12)
    assert torch.allclose(gradient(P.mixture, (p / old).log(), adv, gap=(old / omega).log()), out, atol=1e-12)


def test_mixture_of_a_policy_with_itself_is_the_plain_ratio() -> None:
    x, adv = f64(0.3, -0.7), f64(1.0, -2.0)
    assert torch.allclose(P.mixture(x, adv, gap=torch.zeros(2, dtype=F64)), policy.ratio(x, adv), atol=1e-12)


def test_halfway_gap() -> None:
    old = f64(0.2, 1.0, 0.5)
    assert torch.allclose(P.halfway_gap(old.log()).exp(), old / ((old + 1) / 2), atol=1e-12)
    x = f64(0.4, 0.9, 0.3).log() - old.log()
    out = P.mixture(x, -torch.ones(3, dtype=F64), gap=P.halfway_gap(old.log()))
    assert out[1].item() == pytest.approx(0.9)  # p_old = 1: the probability itself
    assert (out <= 4).all()
    tiny = torch.tensor([-1e4], dtype=F64)
    far = P.mixture(f64(math.log(0.7)) - tiny, -torch.ones(1, dtype=F64), gap=P.halfway_gap(tiny))
    assert far.item() == pytest.approx(2 * 0.7 / 0.5)


def test_focal_factor_by_hand() -> None:
    assert P.focal_factor(f64(0.36, 1.0).log()).tolist() == pytest.approx([0.8, 0.0])
    assert P.focal_factor(f64(0.36).log(), gamma=2.0).item() == pytest.approx(0.64**2)
    assert P.focal_factor(f64(0.36).log(), gamma=0.0).item() == 1.0
    assert not P.focal_factor(f64(-0.5).requires_grad_()).requires_grad
    with pytest.raises(ValueError, match="at most 0"):
        P.focal_factor(f64(0.1))
    with pytest.raises(ValueError, match="gamma"):
        P.focal_factor(f64(-0.1), gamma=-1.0)


def test_awr_by_hand() -> None:
    x, adv = f64(-0.5, 2.0, 1.5), f64(1.2, -0.6, 50.0)
    assert P.awr(x, adv).tolist() == pytest.approx([math.exp(1.2) * 0.5, -math.exp(-0.6) * 2.0, -150.0])
    warm = P.awr(x, adv, temperature=1 / 3, max_weight=20.0)
    assert warm.tolist() == pytest.approx([20.0 * 0.5, -math.exp(-1.8) * 2.0, -30.0])
    assert gradient(P.awr, x, adv).tolist() == pytest.approx([-math.exp(1.2), -math.exp(-0.6), -100.0])


def test_a_hot_awr_is_behaviour_cloning() -> None:
    x = torch.randn(4, 3, dtype=F64)
    assert torch.allclose(P.awr(x, torch.randn(4, dtype=F64), temperature=1e12), -x, atol=1e-9)


def test_awr_takes_a_temperature_per_row() -> None:
    x, adv = torch.ones(2, 2, dtype=F64), f64(1.0, 1.0)
    out = P.awr(x, adv, temperature=f64(1.0, 0.5))
    assert out.tolist() == [pytest.approx([-math.e] * 2), pytest.approx([-math.exp(2.0)] * 2)]
    with pytest.raises(ValueError, match="temperature"):
        P.awr(x, adv, temperature=f64(1.0, 0.0))
    with pytest.raises(ValueError, match="max_weight"):
        P.awr(x, adv, max_weight=0.99)
    assert torch.equal(P.awr(x, adv, max_weight=1.0), -x)


@pytest.mark.parametrize("loss", LOSSES)
def test_only_the_log_ratio_learns(loss) -> None:
    x, adv = torch.zeros(2, 3, dtype=F64, requires_grad=True), torch.ones(2, dtype=F64, requires_grad=True)
    loss = partial(P.mixture, gap=GAP[:2]) if isinstance(loss, partial) else loss
    grads = torch.autograd.grad(loss(x, adv).sum(), (x, adv), allow_unused=True)
    assert (grads[0] < 0).all() and grads[1] is None
    assert torch.autograd.gradcheck(lambda x: loss(x, adv.detach()), x)


def test_gaps_and_temperatures_do_not_learn() -> None:
    x, gap, t = (torch.full((2,), 0.5, dtype=F64, requires_grad=True) for _ in range(3))
    out = P.mixture(x, torch.ones(2, dtype=F64), gap=gap) + P.awr(x, torch.ones(2, dtype=F64), temperature=t)
    assert torch.autograd.grad(out.sum(), (gap, t), allow_unused=True) == (None, None)
    assert not P.halfway_gap(gap).requires_grad


@pytest.mark.parametrize("loss", [P.shaped, partial(P.mixture, gap=torch.tensor([0.2, -0.1])), P.awr])
def test_corners_and_padding(loss) -> None:
    x = torch.tensor([[-1e4, -50.0, 0.0], [50.0, 1e4, NAN]]).requires_grad_()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    adv = torch.tensor([[1.0, -1.0, 0.0], [1.0, -1.0, NAN]])
    out = loss(x, adv, mask=mask)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(out).all() and torch.isfinite(grad).all() and out[1, 2] == 0 and grad[1, 2] == 0
    for dtype in (torch.float16, torch.bfloat16):
        assert loss(x.detach().to(dtype)[0][:2], adv[0, :2].to(dtype)).dtype == torch.float32


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_and_types_are_checked(loss) -> None:
    positional = [p.name for p in inspect.signature(loss).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert positional == ["log_ratio", "adv"]
    with pytest.raises(ValueError, match="floating"):
        loss(torch.zeros(3, dtype=torch.long), torch.zeros(3))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        loss(torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="mask"):
        loss(torch.zeros(3), torch.zeros(3), mask=torch.ones(2))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="gamma"):
        P.shaped(torch.zeros(2), torch.zeros(2), gamma=0.0)
    with pytest.raises(ValueError, match="floating"):
        P.halfway_gap(torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="floating"):
        P.focal_factor(torch.zeros(2, dtype=torch.long))


def test_mixture_holds_half_its_ratio() -> None:
    out = P.mixture(
        torch.tensor([100.0, -100.0]), -torch.ones(2), gap=torch.full((2,), 50.0), max_log_ratio=math.log(3)
    )
    assert out.tolist() == pytest.approx([6.0, 2 / 3])
    assert P.mixture(torch.tensor([100.0]), -torch.ones(1), gap=torch.full((1,), 50.0)).item() == pytest.approx(
        2 * math.exp(20.0), rel=1e-5
    )
