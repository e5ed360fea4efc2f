"""Numbers by hand; features are chosen so that distances and products are whole."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import anchor, recipes
from diffalign.losses.recipes.reward_models import Oppo

D = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


W, L = t([3.0, 4.0]), t([0.0, 1.0])  # at distance 5 and 1 from the origin


def test_oppo() -> None:
    oppo, zero = recipes.get("oppo"), t(0.0, 0.0)
    encoder, point = oppo(W, L, zero)
    assert point.item() == pytest.approx(1 + 5 - 1)  # hinge of 1 on the distances
    assert encoder.item() == pytest.approx(0.1 * 5 + 0.1 * (16 + 0) / 2)
    assert oppo(W, 3 * L, zero).encoder.item() == pytest.approx(0.1 * 3 + 0.1 * (16 + 4) / 2)
    human = oppo(W, L, zero, preference_weight=10.0, norm=anchor.norm_excess)
    assert human.encoder.item() == pytest.approx(10 * 5 + 0.1 * 4 / 2)
    assert oppo(L, W, zero).anchor.item() == 0 and oppo(L, L, zero, margin=0.0).anchor.item() == 0
    assert oppo(W, W, zero).anchor.item() == 1


def test_oppo_alternates() -> None:
    w, point = W.clone().requires_grad_(), t(0.5, 0.0).requires_grad_()
    out: Oppo = recipes.get("oppo")(w, L, point, norm_weight=0.0)
    for loss, learns, rests in ((out.encoder, w, point), (out.anchor, point, w)):
        a, b = torch.autograd.grad(loss.sum(), (learns, rests), allow_unused=True, retain_graph=True)
        assert a.abs().sum() > 0 and b is None
    loser = L.clone().requires_grad_()
    out = recipes.get("oppo")(W, loser, point)
    assert torch.autograd.grad(out.anchor.sum(), loser, allow_unused=True)[0] is None
    swapped = recipes.get("oppo")(L, w, point, margin=20.0).anchor.sum()
    there = recipes.get("oppo")(w, L, point, margin=20.0).anchor.sum()
    g = [torch.autograd.grad(x, point)[0] for x in (there, swapped)]
    assert torch.allclose(g[0], -g[1])


def test_lore() -> None:
    basis, user = t([100.0, 0.0], [0.0, 50.0]), t(math.log(3), 0.0)
    # differences (3, 3): heads 300 and 150, user weights 3/4 and 1/4, over 100
    assert recipes.get("lore")(W, L, basis, user).item() == pytest.approx(softplus(-(0.75 * 3 + 0.25 * 1.5)))
    assert recipes.get("lore")(W, L, basis, user[None], temperature=50.0).item() == pytest.approx(softplus(-5.25))
    one = recipes.get("lore")(W, L, basis[:1], t(7.0))
    assert one.item() == pytest.approx(softplus(-3))  # rank 1 is one Bradley-Terry head
    inputs = [x.requires_grad_() for x in (W.clone(), L.clone(), basis / 50, user)]
    assert torch.autograd.gradcheck(recipes.get("lore"), inputs)


def test_pal() -> None:
    points, user = t([1.0, 0.0], [0.0, 1.0]), t(50.0, -50.0)  # all weight on the first
    w, l = t([1.0, 0.0]), t([0.0, 1.0])  # noqa: E741
    assert recipes.get("pal")(w, l, points, user, log_scale=0.0).item() == pytest.approx(0, abs=1e-12)
    assert recipes.get("pal")(l, w, points, user, log_scale=0.0).item() == pytest.approx(4 / 10)  # gap 2, width 5
    far = 1 / 0.07 + 1 - 2.5
    assert recipes.get("pal")(l, w, points, user).item() == pytest.approx(far)
    assert recipes.get("pal")(l, w, points, user, width=1.0).item() == pytest.approx(far + 2)
    assert recipes.get("pal")(l, w, points, user, log_scale=20.0).item() == pytest.approx(100 + 1 - 2.5)
    mixed = recipes.get("pal")(w.expand(2, -1), l.expand(2, -1), points, t(0.0, 0.0), log_scale=0.0)
    assert mixed.tolist() == pytest.approx([0.1, 0.1])  # the point between is no nearer to either
    # rows may be different users
    rows = recipes.get("pal")(l.expand(2, -1), w.expand(2, -1), points, torch.stack([user, -user]), log_scale=0.0)
    assert rows.tolist() == pytest.approx([0.4, 0.0], abs=1e-12)


def test_domain_knowledge_rm() -> None:
    scores_w, scores_l, weights = t([0.9, 0.2]), t([0.4, 0.7]), t(2.0, -1.0)
    loss = recipes.get("domain-knowledge-rm")(scores_w, scores_l, weights)
    assert loss.item() == pytest.approx(softplus(-1.5))
    grad = torch.autograd.grad(
        recipes.get("domain-knowledge-rm")(scores_w, scores_l, weights.requires_grad_()), weights
    )
    assert grad[0].tolist() == pytest.approx([-0.5 / (1 + math.exp(1.5)), 0.5 / (1 + math.exp(1.5))])


def test_drm_pca() -> None:
    difference = torch.cat([torch.diag(t(5.0, 2.0)), -torch.diag(t(5.0, 2.0))])  # principal axes x, then y
    shots = t([0.0, math.log(3)], [0.0, math.log(3)])
    heads, weights = recipes.get("drm-pca")(difference, shots, n=2)
    assert heads.abs().tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    up = 1 if heads[1, 1] > 0 else 3
    raw = [0.25, 0.25, 0.25, 0.25]
    raw[up], raw[4 - up] = (3 / 4) ** 2, (1 / 4) ** 2
    assert weights.tolist() == pytest.approx([x / sum(raw) for x in raw])
    cool = recipes.get("drm-pca")(difference, shots, n=2, temperature=2.0).weights
    assert (cool[up] / cool[4 - up]).item() == pytest.approx(3)
    assert (weights[up] / weights[4 - up]).item() == pytest.approx(9)
    many = torch.randn(60, 24, generator=torch.Generator().manual_seed(0))
    assert recipes.get("drm-pca")(many, many[:5]).heads.shape == (40, 24)


def test_published_settings() -> None:
    assert dict(recipes.get("oppo").defaults)["margin"] == 1.0 and recipes.get("lore").defaults["temperature"] == 100
    assert recipes.get("pal").defaults["log_scale"] == pytest.approx(math.log(1 / 0.07))
