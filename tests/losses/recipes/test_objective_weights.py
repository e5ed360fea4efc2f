"""Weights of objectives, by name."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes import objective_weights

F64 = torch.float64
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


GRAM = t([4, 0, -2], [0, 1, 0.5], [-2, 0.5, 9])


def test_drw() -> None:
    out = recipes.get("drw")(GRAM, t(0.5, 0.25, 0.25))  # influences 2, 1.5 and 7.5, times .1
    raw = [0.5 * math.exp(0.2), 0.25 * math.exp(0.15), 0.25 * math.exp(0.75)]
    assert out.tolist() == approx([w / sum(raw) for w in raw])


def test_drw_scales_the_reward_by_what_the_front_gains() -> None:
    front, zero = t([3, 1], [1, 3]), t(0, 0)  # volume 5; (2, 2) adds 1
    scale = objective_weights.drw_scale(front, t(2, 2), zero)
    assert scale.item() == approx(0.5 + 1.5 * math.tanh(1))
    assert objective_weights.drw_scale(front, t(1, 1), zero).item() == 0.5
    assert objective_weights.drw_scale(0.1 * front.float(), 0.1 * t(1, 1).float(), zero.float()).item() == 0.5


def test_barfi() -> None:
    assert recipes.get("barfi")(GRAM, t(1, 1, 1), lr=0.1).tolist() == approx([1.4, 1, 0.8])
    assert recipes.get("barfi")(GRAM, t(1, 1, 1), primary=2, lr=0.1).tolist() == approx([0.8, 1.05, 1.9])


def test_dreamprm() -> None:
    assert recipes.get("dreamprm")(t(5, -3), t(1, 2)).tolist() == approx([1.05, 1.97])


def test_pareto_da() -> None:
    gram = t([1, -0.5], [-0.5, 4])
    assert recipes.get("pareto-da")(gram, t(3, 1)).tolist() == approx([8 / 9, 1 / 9])
    assert recipes.get("pareto-da")(gram, t(-1, -3)).tolist() == approx([0.75, 0.25])  # the shortest mixture
