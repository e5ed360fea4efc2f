"""Pairs under the logistic link: each method's published settings give a number worked out by hand, and each switch,
turned off, gives DPO.
"""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.ratio_links import power_link

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


W, K = t(1.2), t(-3.4)  # log-ratios of winner and loser: h = 4.6
LOGP_W, LOGP_L = (torch.tensor([x], dtype=F64) for x in ([-0.5, -1.5, -0.25], [-2.0, -0.5, -9.0]))
MASK_L = torch.tensor([[1, 1, 0]])

BY_HAND = {
    "dpo": ([W, K], {}, 0.4893672),  # softplus(-0.46)
    "con-j": ([W, K], {}, 0.6704117),  # softplus(-0.046)
    "mapl": ([W, K], {}, 0.4893672),
    "dno": ([W, K, t(0.8), t(0.3)], {}, 0.6630359),  # p = sigmoid(0.5)
    "osp": ([W, K, t(0.7)], {}, 0.6273672),  # .7 sp(-.46) + .3 sp(.46)
    "rdpo-robust": ([W, K], {"flip": 0.2}, 0.3360339),  # (.8 sp(-.46) - .2 sp(.46)) / .6
    "flex-dpo": ([W, K, t(-2.5)], {}, 0.8086230),  # sp(-(.12 + .17)) + .1 * 2.5
    "rpo-sft": ([W, K, t(-2.5)], {}, 0.5972452),  # sp(-.23) + .005 * 2.5
    "hypo": ([W, K, t(0.6, -1.4)], {}, 0.4894252),  # sp(-.46) + 1e-4 * (.36 + 1.96) / 4
    "madpo": ([W, K, t(1.5)], {}, 0.5696266),  # sigmoid(1.5 c) / sigmoid(1.5) * sp(-.46)
    "f-dpo": ([W, K], {}, 0.5471752),  # sp(-.1 (log sigmoid(1.2) - log sigmoid(-3.4)))
    "simpo": ([LOGP_W, LOGP_L], {"mask_l": MASK_L}, 0.4740770),  # means -.75, -1.25: sp(-(1 - .5))
    "alphapo": ([LOGP_W, LOGP_L], {"mask_l": MASK_L}, 0.2003074),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    args, settings, expected = BY_HAND[name]
    assert recipes.get(name)(*args, **settings).tolist() == pytest.approx([expected], abs=1e-7)


def test_published_settings() -> None:
    found = {name: dict(recipes.get(name).defaults) for name in BY_HAND}
    found["f-dpo"].pop("link")
    assert found == {
        "dpo": {"beta": 0.1},
        "con-j": {"beta": 0.01},
        "mapl": {"beta": 0.1},
        "dno": {"beta": 0.1},
        "osp": {"beta": 0.1},
        "rdpo-robust": {"beta": 0.1},
        "flex-dpo": {"beta": 0.1, "loser_scale": 0.5, "sft": 0.1},
        "rpo-sft": {"beta": 0.05, "eta": 0.005},
        "hypo": {"beta": 0.1, "lam": 1e-4},
        "madpo": {"beta": 0.1, "tau": math.log(999), "c_min": 0.5, "c_max": 2.0, "lam": 1.0},
        "f-dpo": {"beta": 0.1},
        "simpo": {"beta": 2.0, "gamma": 0.5},
        "alphapo": {"beta": 2.5, "gamma": 0.1, "alpha": 0.25},
    }


@pytest.mark.parametrize(
    ("name", "args", "off"),
    [
        ("dno", [t(1e9), t(-1e9)], {}),
        ("osp", [t(1.0)], {}),
        ("rdpo-robust", [], {"flip": 0.0}),
        ("flex-dpo", [t(-2.5)], {"loser_scale": 1.0, "sft": 0.0}),
        ("rpo-sft", [t(-2.5)], {"beta": 0.1, "eta": 0.0}),
        ("hypo", [t(0.6)], {"lam": 0.0}),
        ("madpo", [t(1.5)], {"lam": 0.0}),
        ("f-dpo", [], {"link": lambda r: r}),
        ("f-dpo", [], {"link": partial(power_link, alpha=1e-9)}),
        ("con-j", [], {"beta": 0.1}),
    ],
)
def test_without_its_switch_it_is_dpo(name: str, args: list, off: dict) -> None:
    base = recipes.get("dpo")(W, K)
    assert torch.allclose(recipes.get(name)(W, K, *args, **off), base, atol=1e-7)


def test_mapl_cannot_tell_equal_prompts_apart_and_is_antisymmetric() -> None:
    mapl = recipes.get("mapl")
    assert mapl(W, W).item() == pytest.approx(math.log(2))
    assert (mapl(W, K) - mapl(K, W)).item() == pytest.approx(-0.46)


def test_dno_pulls_the_margin_to_the_difference_of_win_rates() -> None:
    r = t(5.0).requires_grad_()
    wins = [t(0.8).requires_grad_(), t(0.3).requires_grad_()]
    loss = recipes.get("dno")(r, t(0.0), *wins)
    grads = torch.autograd.grad(loss.sum(), [r, *wins], allow_unused=True)
    assert grads[0].item() == pytest.approx(0, abs=1e-12) and grads[1] is None and grads[2] is None


def test_osp_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="strength"):
        recipes.get("osp")(W, K, t(1.2))


def test_fine_tuning_terms_leave_the_loser_alone() -> None:
    r_w, r_l, logp = t(1.2).requires_grad_(), t(-3.4).requires_grad_(), t(-2.5).requires_grad_()
    (base,) = torch.autograd.grad(recipes.get("dpo")(r_w, r_l, beta=0.05).sum(), r_l)
    g_l, g_logp = torch.autograd.grad(recipes.get("rpo-sft")(r_w, r_l, logp).sum(), (r_l, logp))
    assert torch.equal(g_l, base) and g_logp.item() == pytest.approx(-0.005)


def test_flex_dpo_damps_the_push_on_the_loser() -> None:
    r_w, r_l = t(0.2).requires_grad_(), t(0.3).requires_grad_()
    g_w, g_l = torch.autograd.grad(recipes.get("flex-dpo")(r_w, r_l, t(0.0)).sum(), (r_w, r_l))
    assert (g_l / g_w).item() == pytest.approx(-0.5)


def test_hypo_adds_the_score_function_gradient_of_the_kl() -> None:
    online = t(0.6, -1.4).requires_grad_()
    (grad,) = torch.autograd.grad(recipes.get("hypo")(W, K, online, lam=3.0).sum(), online)
    assert grad.tolist() == pytest.approx([3 * 0.6 / 2, -3 * 1.4 / 2])


def test_f_dpo_takes_any_link() -> None:
    forward = recipes.get("f-dpo")(W, K, link=partial(power_link, alpha=1.0))
    assert forward.item() == pytest.approx(0.0502120, abs=1e-7)


def test_simpo_without_margin_is_dpo_of_beta_over_length() -> None:
    free = recipes.get("simpo")(LOGP_W, LOGP_L, gamma=0.0)
    flat = torch.full_like(LOGP_W, -1.1)
    sums = (LOGP_W - flat).sum(1), (LOGP_L - flat).sum(1)
    assert torch.allclose(free, recipes.get("dpo")(*sums, beta=2.0 / 3))


def test_simpo_masks_either_side() -> None:
    simpo = recipes.get("simpo")
    cut = simpo(LOGP_W[:, :2], LOGP_L)
    assert torch.allclose(simpo(LOGP_W, LOGP_L, mask_w=MASK_L), cut) and not torch.allclose(simpo(LOGP_W, LOGP_L), cut)


def test_alphapo_without_a_power_is_simpo() -> None:
    same = {"beta": 2.0, "gamma": 0.5, "mask_w": MASK_L, "mask_l": MASK_L}
    flat = recipes.get("alphapo")(LOGP_W, LOGP_L, alpha=1e-9, **same)
    assert torch.allclose(flat, recipes.get("simpo")(LOGP_W, LOGP_L, **same), atol=1e-7)


@pytest.mark.parametrize("name", BY_HAND)
def test_one_loss_per_pair_finite_far_out_with_a_gradient(name: str) -> None:
    args, settings, _ = BY_HAND[name]
    rows = [x.repeat(4, *[1] * (x.ndim - 1)).float() for x in args]
    settings = {k: v.repeat(4, 1) if k.startswith("mask") else v for k, v in settings.items()}
    rows[0] = (torch.tensor([-1e4, -50.0, 50.0, 1e4]).view(-1, *[1] * (rows[0].ndim - 1)) + rows[0]).requires_grad_()
    loss = recipes.get(name)(*rows, **settings)
    (grad,) = torch.autograd.grad(loss.sum(), rows[0])
    assert loss.shape == (4,) and torch.isfinite(loss).all() and torch.isfinite(grad).all() and grad.abs().sum() > 0
