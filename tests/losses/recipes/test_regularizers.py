from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes, sft
from diffalign.losses.recipes.regularizers import move_anchor

D = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def k3(r: float) -> float:
    return math.exp(-r) + r - 1


def test_t1() -> None:
    r, entropy, mask = t([0.5, -1.0, math.nan]), t([2.0, 0.3, math.nan]), torch.tensor([[1, 1, 0]])
    out = recipes.get("t1")(r, entropy, kl_coef=0.1, entropy_coef=0.01, mask=mask)
    assert out[0].tolist() == pytest.approx([0.1 * k3(0.5) - 0.02, 0.1 * k3(-1.0) - 0.003, 0.0])
    with pytest.raises(ValueError, match="entropy_coef"):
        recipes.get("t1")(r, entropy, kl_coef=0.1, entropy_coef=-0.01)


def test_the_anchor_of_t1_moves_by_its_rate() -> None:
    anchor, policy = {"w": t(1.0, 2.0)}, {"w": t(3.0, 2.0).requires_grad_()}
    assert move_anchor(anchor, policy, rate=0.0)["w"].tolist() == [1, 2]
    moved = move_anchor(anchor, policy, rate=0.25)["w"]
    assert moved.tolist() == [1.5, 2] and not moved.requires_grad and anchor["w"].tolist() == [1, 2]
    for rate in (-0.1, 1.1):
        with pytest.raises(ValueError, match="rate"):
            move_anchor(anchor, policy, rate=rate)
    with pytest.raises(ValueError, match="'v', 'w'"):
        move_anchor(anchor, {"v": t(1.0)}, rate=0.5)
    assert move_anchor(anchor, policy, rate=1.0)["w"].tolist() == [3, 2]


def test_vpo() -> None:
    w, l, cal = t(3.0), t(1.0), t(4.0)  # noqa: E741
    assert recipes.get("vpo")(w, l, cal, weight=0.5).item() == pytest.approx(softplus(-0.2) - 2)  # pessimism pulls
    assert recipes.get("vpo")(w, l, cal, weight=-0.5).item() == pytest.approx(softplus(-0.2) + 2)  # optimism pushes
    assert recipes.get("vpo")(w, l, cal, weight=0.0, beta=0.5).item() == pytest.approx(softplus(-1))


def test_vpo_reads_the_log_partition() -> None:
    """With E_cal r = 0 the calibration term is beta log Z: for pi ~ ref exp(r / beta), -beta E_cal[log pi / ref]."""
    reward, ref, beta = t(0.3, -0.1, -0.2), t(0.2, 0.5, 0.3), 0.7
    reward = reward - reward.mean()  # uniform calibration
    log_z = (ref * (reward / beta).exp()).sum().log()
    log_ratio = reward / beta - log_z
    zero = torch.zeros(3, dtype=D)
    term = recipes.get("vpo")(zero, zero, log_ratio, weight=beta) - math.log(2)
    assert term.mean().item() == pytest.approx((beta * log_z).item())


def test_f_sft() -> None:
    r = t(0.5, -0.4)
    assert recipes.get("f-sft")(r).tolist() == pytest.approx([-0.4375, 0.44])
    assert recipes.get("f-sft")(r, beta=2.0).tolist() == pytest.approx([-0.75, 0.96])
    assert recipes.get("f-sft")(r, term=sft.hellinger).tolist() == pytest.approx([-1 / 3, 2 / 3])
    assert recipes.get("f-sft")(r, term=sft.nll).tolist() == [-0.5, 0.4]


def jensen_shannon(p: float, q: float) -> float:
    m = (p + q) / 2
    half = [x * math.log(x / m) + (1 - x) * math.log((1 - x) / (1 - m)) for x in (p, q)]
    return sum(half) / 2


def test_scir() -> None:
    w, l = t(10.0, 10.0), t(0.0, 0.0)  # noqa: E741  implicit probability sigmoid(1)
    judge = t([math.log(3), 0.0], [0.0, math.log(3)])
    p = 1 / (1 + math.exp(-1))
    out = recipes.get("scir")(w, l, judge)
    assert out.tolist() == pytest.approx([softplus(-1) + jensen_shannon(p, 0.75), jensen_shannon(p, 0.25)])
    twice = recipes.get("scir")(w, l, judge, weight=2.0)
    assert (twice - out).tolist() == pytest.approx([jensen_shannon(p, 0.75), jensen_shannon(p, 0.25)])
    equal = recipes.get("scir")(w, l, t([1.0, 0.0], [1.0, 0.0]), beta=0.1)
    assert equal.tolist() == pytest.approx([softplus(-1)] * 2)
    both = recipes.get("scir")(-w, l, t([0.0, 1.0], [0.0, 1.0]))
    assert both.tolist() == pytest.approx([softplus(1)] * 2)  # both prefer the labelled loser: DPO still trains
    tie = recipes.get("scir")(w, l, t([0.0, 0.0], [0.0, 0.0]))
    assert tie.tolist() == pytest.approx([jensen_shannon(p, 0.5)] * 2)
    r, j = w.clone().requires_grad_(), judge.clone().requires_grad_()
    grads = torch.autograd.grad(recipes.get("scir")(r, l, j).sum(), (r, j), allow_unused=True)
    assert (grads[0] != 0).all() and grads[1] is None
    assert torch.autograd.gradcheck(lambda x: recipes.get("scir")(x, l, judge), r)


def test_papo() -> None:
    full, blind, mask = t([-1.0, -2.0, math.nan]), t([-1.5, -1.0, math.nan]), torch.tensor([[1, 1, 0]])
    out = recipes.get("papo")(full, blind, mask=mask)
    assert out[0].tolist() == pytest.approx([-0.01 * k3(0.5) + 0.075, -0.01 * k3(-1.0) + 0.09, 0.0])
    other = recipes.get("papo")(full, blind, kl_coef=0.02, entropy_coef=0.05, mask=mask)
    assert other[0, 0].item() == pytest.approx(-0.02 * k3(0.5) + 0.125)
    same = recipes.get("papo")(full[:, :2], full[:, :2], entropy_coef=1e-9)
    assert same.abs().max().item() == pytest.approx(0, abs=1e-8)


def test_papo_trains_both_conditions() -> None:
    full, blind = t([-1.0]).requires_grad_(), t([-1.5]).requires_grad_()
    g = torch.autograd.grad(recipes.get("papo")(full, blind).sum(), (full, blind))
    pull = 0.01 * (1 - math.exp(-0.5))
    assert [x.item() for x in g] == pytest.approx([-pull - 0.03, pull - 0.03])
    with pytest.raises(ValueError, match="unbounded"):
        recipes.get("papo")(full, blind, entropy_coef=0.0)
    assert recipes.get("papo")(full, blind, kl_coef=0.0, entropy_coef=0.0).item() == 0


def test_rdpo_rationales() -> None:
    w, l, why = t(3.0), t(1.0), t(-5.0)  # noqa: E741
    assert recipes.get("rdpo-rationales")(w, l, why).item() == pytest.approx(softplus(-0.2) + 0.1 * softplus(0.5))
    readme = recipes.get("rdpo-rationales")(w, l, why, weight=0.001, beta=0.2)
    assert readme.item() == pytest.approx(softplus(-0.4) + 0.001 * softplus(1.0))


def test_salsa() -> None:
    logp, soup = t([-1.0, -2.0]).requires_grad_(), t([-1.5, -1.0])
    penalty = recipes.get("salsa")(logp, soup, coef=0.1)
    assert penalty[0].tolist() == pytest.approx([-0.05, 0.1]) and not penalty.requires_grad
    with pytest.raises(ValueError, match="coef"):
        recipes.get("salsa")(logp, soup, coef=-0.1)
