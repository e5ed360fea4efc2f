"""Sums, products and gates of rewards by name."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

F64 = torch.float64
NAN = math.nan
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_harmo() -> None:
    rule, model = t(1, 0.5, NAN, 4), t(2, NAN, 3, 5)
    out = recipes.get("harmo")(
        rule, model, t([1, 2, 3, 4], [5, 6, 7, 8]), t(0.75, 1, 0, 0.2), t(1, 1, 1, 0), weights=[2, 0.5, -1]
    )
    assert out.tolist() == approx([2 * 1.25 + 0.5 - 5, 1 + 1 - 6, 6 + 1.5 - 7, 0])
    with pytest.raises(ValueError, match="confidence"):
        recipes.get("harmo")(rule, model, t([1, 2, 3, 4]), t(2, 1, 0, 0), t(1, 1, 1, 0), weights=[1, 1])


def test_lav_cot() -> None:
    out = recipes.get("lav-cot")(t([1, 2], [3, NAN]), weights=[0.5, 0.25])
    assert out[0].item() == 1.25 and out[1].isnan()
    assert recipes.get("lav-cot")(t([1, 2], [3, NAN]), weights=[0.5, 0]).tolist() == [0.5, 1]


def test_pagellm() -> None:
    out = recipes.get("pagellm")(t(3, 4), t([1, 2, 6], [2, NAN, 6]), weight=0.5)
    assert out.tolist() == [4.5, 6]
    assert recipes.get("pagellm")(t([3]), t([[1, 2, 6]]), weight=0.5).tolist() == [[4.5]]
    with pytest.raises(ValueError, match="share one shape"):
        recipes.get("pagellm")(t(3, 4), t([1, 2]), weight=0.5)


def test_rl_text2vis() -> None:
    scores = t([1, 1], [0.5, 0.5], [2, 2])
    assert recipes.get("rl-text2vis")(scores, t(1, 0), weights=[0.5, 1, 0.25]).tolist() == [1.5, 0]


def test_druggen() -> None:
    assert recipes.get("druggen")(t(7, NAN), t(1, 0)).tolist() == [7, 0]
    assert recipes.get("druggen")(t(7, NAN), t(1, 0), floor=-1.0).tolist() == [7, -1]


def test_verireason() -> None:
    passed = t([1, 1, 0], [1, 0, 1])
    assert recipes.get("verireason")(passed, values=[0, 0.1, 1]).tolist() == approx([1, 0.1, 0])


def test_rrvf() -> None:
    out = recipes.get("rrvf")(t(0.8, NAN, 0.6), t(1, 0, 1), t(1, 1, 0), weight=0.1)
    assert out.tolist() == approx([0.9, 0.1, 0.6])


def test_refcritic() -> None:
    out = recipes.get("refcritic")(t(1, 0), t(0.25, 0.5), t(0.75, 0.25), weight=0.5)
    assert out.tolist() == [1.25, -0.125]


def test_listener() -> None:
    out = recipes.get("listener")(t(1, 0, 1), t(1, 1, 0), t(0.8, 0.4, 0.2))
    assert out.tolist() == approx([1.9, 0.7, 1.1])
    assert recipes.get("listener")(t(1, 1), t(0, NAN), t(NAN, 0.5)).isnan().all()
    with pytest.raises(ValueError, match="confidence"):
        recipes.get("listener")(t(1), t(1), t(1.5))


def test_debate_reward() -> None:
    env, verdict, swapped = t(2, 2, 2), t(1, 1, -0.5), t(-1, 1, 0.25)
    assert recipes.get("debate-reward")(env, verdict, swapped, weight=0.25).tolist() == [1.75, 1.5, 1.40625]
    assert torch.equal(recipes.get("debate-reward")(env, verdict * NAN, swapped, weight=0.0), env)
    there = recipes.get("debate-reward")(0 * env, verdict, swapped, weight=0.5)
    assert torch.equal(recipes.get("debate-reward")(0 * env, swapped, verdict, weight=0.5), -there)
    with pytest.raises(ValueError, match="weight"):
        recipes.get("debate-reward")(env, verdict, swapped, weight=1.5)


def test_lpo_gui() -> None:
    entropy, distance = t(2, 4, 3), t([1, 3], [2, NAN], [0, 0])
    out = recipes.get("lpo-gui")(entropy, distance, t(1, 1, 0), max_entropy=4.0, limit=4.0)
    assert out.tolist() == [0.25, 0.5, 0]
    far = recipes.get("lpo-gui")(t(4), t([9, 0]), t(1), max_entropy=4.0, limit=4.0)
    assert far.tolist() == [0.5]
    group = recipes.get("lpo-gui")(t([4]), t([[9, 0]]), t([1]), max_entropy=4.0, limit=4.0)
    assert group.tolist() == [[0.5]]
    with pytest.raises(ValueError, match="max_entropy"):
        recipes.get("lpo-gui")(entropy, distance, t(1, 1, 0), max_entropy=0.0, limit=4.0)
    with pytest.raises(ValueError, match="share one shape"):
        recipes.get("lpo-gui")(t(1), distance, t(1, 1, 0), max_entropy=1.0, limit=4.0)
