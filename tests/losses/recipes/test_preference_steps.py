"""Pairs made of steps, groups and conditions: numbers by hand, reductions to DPO, and what must not learn."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes.preference_steps import tdpo1

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=F64)


W, K = t(1.2), t(-3.4)
BY_HAND = {
    "tdpo": ([W, K, t(0.7), t(2.5)], {}, 0.5251629),  # sp(-(.46 - .05 * 1.8))
    "cpl": ([row(-1, -2, -0.5), row(-3, -0.25, -1.5)], {}, 0.7509784),  # sp(-.1 (-3.5 + .5 * 4.75))
    "dppo-preference": ([row(0.2, 0.4, 9), row(0.5, 0.1, 0.6)], {"mask_w": torch.tensor([[1, 1, 0]])}, 0.3132617),
    "cream": ([W, K, row(1, 2, 3), row(1, 3, 2)], {}, 0.6427006),  # C = 2/3
    "gepo": ([row(1.2, 0.4, -0.4), row(-1.0, 0.6)], {}, 1.0902638),  # sp(-.06) + .32 * 4 / 3
    "svpo": ([W, K, torch.stack([t(0.9), t(0.4)]), torch.stack([t(1.0), t(-1.0)])], {}, 1.9743672),
    "opa-dpo": ([W, K, t(0.2)], {}, 1.2531927),  # sp(-.46) + .2 sp(-.1) + sp(-.12)
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    args, settings, expected = BY_HAND[name]
    assert recipes.get(name)(*args, **settings).tolist() == pytest.approx([expected], abs=1e-7)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in BY_HAND} == {
        "tdpo": {"beta": 0.1, "alpha": 0.5},
        "cpl": {"alpha": 0.1, "loser_scale": 0.5, "discount": 1.0},
        "dppo-preference": {"tau": 0.1, "loser_scale": 1.0},
        "cream": {"beta": 0.1, "per_prompt": False},
        "gepo": {"beta": 0.1, "lam": 1.0},
        "svpo": {"beta": 0.1, "value": 1.0, "margin": 1.0},
        "opa-dpo": {"beta": 0.1, "masked": 0.2, "anchor": 1.0, "shift": 0.0},
    }


def test_tdpo_at_the_reference_is_log_two() -> None:
    zero = t(0.0)
    assert recipes.get("tdpo")(zero, zero, zero, zero).item() == pytest.approx(math.log(2))
    assert tdpo1(zero, zero, zero, zero).item() == pytest.approx(math.log(2))


def test_tdpo_two_learns_from_the_losers_kl_only_and_one_from_both() -> None:
    kl_w, kl_l = t(0.7).requires_grad_(), t(2.5).requires_grad_()
    two = torch.autograd.grad(recipes.get("tdpo")(W, K, kl_w, kl_l).sum(), (kl_w, kl_l), allow_unused=True)
    one = torch.autograd.grad(tdpo1(W, K, kl_w, kl_l).sum(), (kl_w, kl_l))
    assert two[0] is None and two[1].item() > 0
    assert one[0].item() == -one[1].item() < 0
    assert tdpo1(W, K, t(0.7), t(2.5)).item() == pytest.approx(0.5629153, abs=1e-7)
    assert torch.allclose(recipes.get("tdpo")(W, K, kl_w, kl_l, alpha=0.0), recipes.get("dpo")(W, K))


def test_cpl_discounts_and_clones() -> None:
    steps = [row(-1, -2, -0.5), row(-3, -0.25, -1.5)]
    cpl = recipes.get("cpl")
    assert cpl(*steps, discount=0.5).item() == pytest.approx(0.7120730, abs=1e-7)
    assert cpl(*steps, loser_scale=1.0, bc=1.0).item() == pytest.approx(2.0075990, abs=1e-7)


def test_cpl_on_log_ratios_at_full_scale_is_dpo() -> None:
    steps = [row(0.3, 0.9), row(-1.4, -2.0)]
    assert torch.allclose(recipes.get("cpl")(*steps, loser_scale=1.0), recipes.get("dpo")(W, K))


def test_cpl_tells_a_shift_of_both_segments() -> None:
    cpl, steps = recipes.get("cpl"), [row(-1, -2), row(-3, -0.5)]
    moved = [x + 1 for x in steps]
    assert cpl(*moved).item() < cpl(*steps).item() - 0.01
    assert torch.allclose(cpl(*moved, loser_scale=1.0), cpl(*steps, loser_scale=1.0))


def test_dppo_is_cpl_on_distances() -> None:
    near, far = row(0.2, 0.4, 0.1), row(0.5, 0.1, 0.6)
    for scale in (1.0, 0.7):
        ours = recipes.get("dppo-preference")(near, far, loser_scale=scale)
        assert torch.allclose(ours, recipes.get("cpl")(-near / 3, -far / 3, alpha=10.0, loser_scale=scale))
    masked = recipes.get("dppo-preference")(near, far, mask_l=torch.tensor([[1, 0, 0]]))
    assert torch.allclose(masked, recipes.get("dppo-preference")(near, far[:, :1]))


def test_cream_trusts_agreement_and_averages_it_unless_told() -> None:
    pairs = [t(1.2, 1.2), t(-3.4, -3.4)]
    now = torch.tensor([[1.0, 2, 3], [1.0, 2, 3]], requires_grad=True)
    before = torch.tensor([[4.0, 5, 6], [6.0, 5, 4]])
    dpo = recipes.get("dpo")
    each = recipes.get("cream")(*pairs, now, before, per_prompt=True)
    assert torch.allclose(each, torch.cat([dpo(W, K), dpo(K, W)]))
    assert torch.allclose(recipes.get("cream")(*pairs, now, before), dpo(*pairs, label=0.5))
    assert not each.requires_grad


def test_gepo_of_one_against_one_is_dpo_and_equal_winners_pay_nothing() -> None:
    gepo, dpo = recipes.get("gepo"), recipes.get("dpo")
    assert torch.allclose(gepo(row(1.2), row(-3.4)), dpo(W, K))
    assert torch.allclose(gepo(row(1.2, 1.2), row(-3.0, -3.8)), dpo(W, K))
    masked = gepo(row(1.2, 7.0), row(-3.4, 5.0), mask_w=torch.tensor([[1, 0]]), mask_l=torch.tensor([[1, 0]]))
    assert torch.allclose(masked, dpo(W, K))
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        gepo(W, K)


def test_svpo_stops_at_a_value_margin_and_targets_do_not_learn() -> None:
    values, targets = torch.tensor([[3.0], [1.0]], requires_grad=True), torch.tensor([[3.0], [1.0]], requires_grad=True)
    loss = recipes.get("svpo")(t(1.2), t(-3.4), values, targets)
    assert torch.allclose(loss, recipes.get("dpo")(W, K))
    grads = torch.autograd.grad(loss.sum(), (values, targets), allow_unused=True)
    assert grads[0].abs().sum() == 0 and grads[1] is None
    half = recipes.get("svpo")(W, K, values, targets, value=0.5, margin=3.0)
    assert torch.allclose(half, recipes.get("dpo")(W, K) + 0.5)
    with pytest.raises(ValueError, match="targets"):
        recipes.get("svpo")(W, K, values, targets[0])


def test_opa_dpo_terms_add_up() -> None:
    opa, dpo = recipes.get("opa-dpo"), recipes.get("dpo")
    bare = {"masked": 0.0, "anchor": 0.0}
    assert torch.allclose(opa(W, K, t(0.2), **bare), dpo(W, K))
    assert torch.allclose(opa(W, K, t(0.2), masked=0.0), dpo(W, K) + dpo(W, t(0.0)))
    assert torch.allclose(opa(W, K, t(0.2), masked=0.0, shift=0.1), dpo(W, K) + dpo(W, t(1.0)))


@pytest.mark.parametrize("name", BY_HAND)
def test_finite_far_out_with_a_gradient(name: str) -> None:
    args, settings, _ = BY_HAND[name]
    rows = [x.repeat(*[1] * (x.ndim - 1), 4) if name == "svpo" else x.repeat(4, *[1] * (x.ndim - 1)) for x in args]
    settings = {k: v.repeat(4, 1) if k.startswith("mask") else v for k, v in settings.items()}
    far = torch.tensor([-1e4, -50.0, 50.0, 1e4]).view(-1, *[1] * (rows[0].ndim - 1))
    rows[0] = (rows[0].float() + far).requires_grad_()
    rows[1:] = [x.float() for x in rows[1:]]
    loss = recipes.get(name)(*rows, **settings)
    (grad,) = torch.autograd.grad(loss.sum(), rows[0])
    assert loss.shape == (4,) and torch.isfinite(loss).all() and torch.isfinite(grad).all() and grad.abs().sum() > 0
