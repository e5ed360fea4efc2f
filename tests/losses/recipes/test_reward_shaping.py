"""Shaped rewards by name, with the numbers of their papers."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.common import empty_moments, update_moments

F64 = torch.float64
NAN = math.nan
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def sig(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_toolrl() -> None:
    out = recipes.get("toolrl")(t(1, 1, 0, 0, NAN), t(4, 2, 1, 0, 4), 4.0)
    assert out[:4].tolist() == [4, 1, -1.5, -3] and out[4].isnan()
    assert recipes.get("toolrl")(t(1), t(4), 4.0, low=0.0, high=2.0).tolist() == [3]
    with pytest.raises(ValueError, match="best_match"):
        recipes.get("toolrl")(t(1), t(4), 0.0)
    with pytest.raises(ValueError, match="share one shape"):
        recipes.get("toolrl")(t(1), t(4, 4), 4.0)


def test_linear_shift() -> None:
    assert recipes.get("linear-shift")(t(1, 2), shift=-0.5).tolist() == [0.5, 1.5]
    with pytest.raises(TypeError, match="shift"):
        recipes.get("linear-shift")(t(1))


def test_par() -> None:
    out = recipes.get("par")(t(1, 3), t([0, 2], [3, 3]))
    assert out.tolist() == approx([(sig(1) + sig(-1)) / 2, 0.5])
    assert recipes.get("par")(t(2), t([1, 1])).tolist() == approx([sig(1)])
    assert recipes.get("par")(t(2), t([1, 1]), k=2.0).tolist() == approx([sig(2)])


def test_lsc() -> None:
    reference = torch.arange(101.0, dtype=F64)[None]
    assert recipes.get("lsc")(t(85), reference).tolist() == approx([-math.log(2)])
    assert recipes.get("lsc")(t(86), reference).tolist() == approx([math.log(sig(1))])


def test_p2r() -> None:
    assert recipes.get("p2r")(t(0.5, 0.75)).tolist() == approx([0, math.log(3)])
    assert recipes.get("p2r")(t(0.0)).item() == approx(-math.log(1e6), rel=1e-6)
    assert recipes.get("p2r")(t(0.0), eps=0.1).item() == approx(-math.log(9))


def test_irrl() -> None:
    assert recipes.get("irrl")(t(0.05, 0.1, 0.7), classes=10).tolist() == approx([0, 0, 0.6])
    with pytest.raises(ValueError, match="classes"):
        recipes.get("irrl")(t(0.5), classes=0)


def test_vision_r1() -> None:
    matches = t([0.4, 0.6, 0.8, 0.9], [0.4, 0.4, 0.8, NAN], [0.9, 0.9, 0.9, 0.6])  # found early: 3/4, 1/3, 4/4
    early = recipes.get("vision-r1")(t(1, 0, 1), matches, t(0.6, 0.4, 0.8), step=1499)
    assert early.tolist() == approx([1 + 0.75 + 0.6, 0 + 0 + 0, 1 + 1 + 1])
    late = recipes.get("vision-r1")(t(1, 0, 1), matches, t(0.8, 0.7, 0.91), step=1500)  # found: 2/4, 1/3, 3/4
    assert late.tolist() == approx([1 + 0.5 + 0.8, 0, 1 + 0.75 + 1])
    assert recipes.get("vision-r1")(t(1, 0, 1), matches, t(0.8, 0.7, 0.91), step=1499).tolist() == approx(
        [1 + 0.75 + 1, 0.7, 1 + 1 + 1]
    )
    most = recipes.get("vision-r1")(t([1]), t([[0.9, 0.9, 0.9, 0.9, 0.1]]), t([0.6]), step=0)  # 4 of 5 are all
    assert most.tolist() == [[approx(2.6)]]
    assert recipes.get("vision-r1")(t(1), t([1.0]), t(1.0), step=5, switch=5).tolist() == [3]
    assert recipes.get("vision-r1")(t(NAN), t([1.0]), t(1.0), step=5).isnan().all()


def test_oni() -> None:
    stats = update_moments(empty_moments(), t(0, 2))  # mean 1, std 1
    out = recipes.get("oni")(t(10, 10, 10), t(3, 0.4, 2), t(1, 1, 2), stats)
    assert out.tolist() == approx([1 + 0.4 * 2, 1, 1 + 0.4 / 8])
    assert recipes.get("oni")(t(10), t(0.6), t(1), stats).tolist() == approx([1 - 0.4 * 0.4])
