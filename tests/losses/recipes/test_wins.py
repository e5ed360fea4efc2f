"""Scores from comparisons, by name."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes, wins
from diffalign.losses.recipes import wins as win_recipes

F64 = torch.float64
NAN = math.nan
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_spo_minimax() -> None:
    p = t([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]])
    assert recipes.get("spo-minimax")(p).tolist() == [approx([0.55, 0.35, 0.6])]


def test_pairwise_rl() -> None:
    v = t([[0.5, 0.9, NAN], [0.3, 0.5, 0.8], [0.6, 0.4, 0.5]])
    out = recipes.get("pairwise-rl")(v, torch.tensor([1]))
    assert out.tolist() == [approx([0.8, 0.5, 0.3])]
    logits = win_recipes.pairwise_rl_logit(v, torch.tensor([1]))
    assert logits.tolist() == [approx([math.log(4), 0, math.log(3 / 7)])]
    sure = t([[0.5, 1.0], [0.0, 0.5]])
    assert win_recipes.pairwise_rl_logit(sure, torch.tensor([1]))[0, 0].item() == approx(math.log(1e6), rel=1e-6)


def test_heron() -> None:
    factors = t([[0, 1, 2, 3]], [[5, 0, 9, 0]])  # deviation of the first sqrt(5 / 3) = 1.29
    assert torch.equal(recipes.get("heron")(factors), wins.indicator(factors[0]))
    p = recipes.get("heron")(factors, coefs=[1.0, 0.0])[0]
    assert p[0].tolist() == [0.5, 1, 0, 0]  # a gap of 1 leaves it to the second factor, of 2 not
    assert p[2].tolist() == [1, 1, 0.5, 1]
    wide = recipes.get("heron")(factors, coefs=[0.7, 0.0])[0]
    assert wide[2].tolist() == [1, 1, 0.5, 0]  # .7 deviations are less than 1: the first decides
    holes = torch.cat([factors, t([[NAN]], [[NAN]])], 2)
    assert torch.equal(recipes.get("heron")(holes, coefs=[1.0, 0.0])[0, :4, :4], p)
    second = recipes.get("heron")(t([[1, 1]], [[0, 3]]), coefs=[0.0, 1.5])[0]
    assert second[0].tolist() == [0.5, 0.5]  # its gap of 3 is 1.41 deviations
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        recipes.get("heron")(factors, coefs=[1.0])


def test_lcpo() -> None:
    votes = t([[1, 2, 3]], [[1, 3, 2]], [[9, 1, 2]])
    assert recipes.get("lcpo")(votes).tolist() == [[0, 1, 2]]  # the mean would have liked the first best


def test_llama_berry() -> None:
    chain = torch.full((1, 4, 4), NAN, dtype=F64)
    for winner, loser in ((3, 1), (1, 0), (0, 2)):
        chain[0, winner, loser], chain[0, loser, winner] = 0.9, 0.1
    assert recipes.get("llama-berry")(chain).tolist() == [approx([1 / 3, 2 / 3, 0, 1])]


def test_think_rm() -> None:
    d = t([[0, 3, -1], [-3, 0, NAN], [1, NAN, 0]])
    root = math.sqrt(20 / 12)
    assert recipes.get("think-rm")(d).tolist() == [approx([2 / 3 / root, -1 / root, 1 / 3 / root], rel=1e-5)]
    tiny = t([[0, 1e-3], [-1e-3, 0]])
    assert recipes.get("think-rm")(tiny)[0, 0].item() == approx(5e-4 / math.sqrt(1.5e-6))
