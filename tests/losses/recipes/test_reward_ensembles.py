"""Ensembles by name, with the numbers of their papers."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.ensemble_uncertainty import max_pairwise
from diffalign.losses.reward_ensembles import ensemble_variance

F64 = torch.float64
NAN = math.nan
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


R = t([1, 4], [2, 0.5], [6, 3])  # means 3, 2.5; unbiased variances 7, 3.25


def test_reward_ensembles() -> None:
    assert recipes.get("reward-ensembles")(R).tolist() == approx([2.3, 2.175])
    assert recipes.get("reward-ensembles")(R, coef=1.0, unbiased=False).tolist() == approx([3 - 14 / 3, 2.5 - 6.5 / 3])
    assert recipes.get("reward-ensembles")(R, coef=None).tolist() == [1, 0.5]


def test_freehand() -> None:
    reference = t([[0, 2], [4, 4]], [[3, 5], [0, 1]], [[0, 0], [1, 1]])
    assert recipes.get("freehand")(R, reference).tolist() == [-2, 0]
    shifted = recipes.get("freehand")(R + t([1], [-5], [3]), reference + t([[1]], [[-5]], [[3]]))
    assert shifted.tolist() == [-2, 0]
    groups = recipes.get("freehand")(R[:, :, None].expand(3, 2, 4), reference)
    assert groups.tolist() == [[-2] * 4, [0] * 4]
    for bad in (reference[:2], reference[0]):
        with pytest.raises(ValueError, match=r"\(K, B, M\)"):
            recipes.get("freehand")(R, bad)


def test_reward_robust() -> None:
    std = t([3, 2], [1, 2.5], [2, 1])
    assert recipes.get("reward-robust")(R, std, weight=0.25).tolist() == approx([0.5 + 0.75, 0.75 + 0.375])
    assert recipes.get("reward-robust")(R, std, weight=1.0).tolist() == [2, 3]
    assert recipes.get("reward-robust")(R, std, weight=0.0).tolist() == [1, 0.5]


def test_dtr() -> None:
    r = t([1, 3, 5], [10, 10, 40], [0, 0, 0])
    z = t(-2, 0, 2) / math.sqrt(8 / 3) + t(-10, -10, 20) / math.sqrt(200)
    assert torch.allclose(recipes.get("dtr")(r), z / 3)


def test_dcppo() -> None:
    seen, phi = t([1, 0], [1, 0], [0, 3]), t([1, 0], [0, 2])
    out = recipes.get("dcppo")(t(5, 6), phi, seen, coef=2.0)
    assert out.tolist() == approx([5 - 2 * math.sqrt(1 / 3), 6 - 2 * math.sqrt(0.4)])
    assert recipes.get("dcppo")(t(5, 6), phi, seen, coef=0.0).tolist() == [5, 6]
    assert recipes.get("dcppo")(t(5, 6), phi, seen, coef=2.0, ridge=7.0)[0].item() == approx(5 - 2 / 3)


def test_maxinforl() -> None:
    log_coef = torch.tensor(math.log(0.5), dtype=F64, requires_grad=True)
    out = recipes.get("maxinforl")(R, t([1, 1], [1, 3]), log_coef)
    gains = [math.log(1 + v / 1e-6) for v in (7, 3.25)]
    assert out.reward.tolist() == approx([3 + 0.5 * gains[0], 2.5 + 0.5 * gains[1]])
    slope = sum(gains) / 2 - (0 + math.log(1 + 2e6)) / 2
    assert out.dual_loss.item() == approx(math.log(0.5) * slope)
    assert torch.autograd.grad(out.dual_loss, log_coef)[0].item() == approx(slope)
    assert not out.reward.requires_grad
    assert recipes.get("maxinforl")(R, R, log_coef).dual_loss.item() == 0
    holes = torch.cat([R, t([NAN], [NAN], [NAN])], 1)
    assert recipes.get("maxinforl")(holes, holes[:, [2, 0, 1]], log_coef).dual_loss.item() == 0
    variance = recipes.get("maxinforl")(R, R, log_coef, gain=ensemble_variance)
    uwo = recipes.get("reward-ensembles")(R, coef=-0.5)
    assert torch.allclose(variance.reward, uwo)


def test_mbrl_penalties() -> None:
    stds = t([1, 2], [2, 2], [0.5, 2])
    out = recipes.get("mbrl-penalties")(R, stds, coef=2.0)
    assert out.tolist() == approx([3 - 2 * math.sqrt(1.75 + 14 / 3), 2.5 - 2 * math.sqrt(4 + 6.5 / 3)])
    assert recipes.get("mbrl-penalties")(R, stds, coef=0.5, measure=max_pairwise).tolist() == [0.5, 0.75]
    with pytest.raises(ValueError, match="share one shape"):
        recipes.get("mbrl-penalties")(R, stds[:2], coef=1.0)
