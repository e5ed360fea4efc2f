from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.rewards.functions.calibration import elo_offset, mismatch_degree, reward_distance


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_starc_is_blind_to_positive_affine_maps_and_one_for_opposites() -> None:
    r = noise(3, 6)
    assert reward_distance(r, 2.5 * r - 4).tolist() == pytest.approx([0.0] * 3, abs=1e-9)
    assert reward_distance(r, -0.1 * r + 1).tolist() == pytest.approx([1.0] * 3)


def test_starc_is_the_distance_of_pearson_and_a_pseudometric() -> None:
    a, b, c = noise(4, 8), noise(4, 8, seed=1), noise(4, 8, seed=2)
    rho = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)])
    assert torch.allclose(reward_distance(a, b), ((1 - rho) / 2).sqrt())
    assert (reward_distance(a, c) <= reward_distance(a, b) + reward_distance(b, c)).all()


def test_starc_leaves_out_what_is_not_scored() -> None:
    a, b = noise(1, 6), noise(1, 6, seed=1)
    holed = torch.cat([a, torch.full((1, 1), torch.nan, dtype=torch.float64)], 1)
    padded = torch.cat([b, torch.full((1, 1), 7.0, dtype=torch.float64)], 1)
    assert torch.allclose(reward_distance(holed, padded), reward_distance(a, b))
    assert reward_distance(torch.ones(1, 4), noise(1, 4)).isnan().all()
    with pytest.raises(ValueError, match="two"):
        reward_distance(a, b[:, 1:])


def test_charm_closes_the_gap_between_win_rate_and_elo() -> None:
    source, reference = noise(30) * 0.1 + 0.3, noise(40, seed=1) * 0.1
    d = elo_offset(source, reference, 1100, 1000)
    wins = ((source[:, None] + d - reference) / 0.1).sigmoid().mean()
    assert float(wins) == pytest.approx(1 / (1 + 10 ** (-100 / 400)), abs=1e-9)


def test_charm_by_hand() -> None:
    """One pair: sigmoid((d + gap) / tau) = p has the root tau logit(p) - gap, logit(p) = ln 10 (E_o - E_r) / 400."""
    one, other = torch.tensor([0.5]), torch.tensor([0.2])
    assert elo_offset(one, other, 1400, 1000, tau=0.2) == pytest.approx(0.2 * math.log(10) - 0.3, abs=1e-6)
    assert elo_offset(one, other, 1000, 1000) == pytest.approx(-0.3, abs=1e-6)
    assert elo_offset(torch.tensor([0.5, torch.nan]), other, 1000, 1000) == pytest.approx(-0.3, abs=1e-6)
    for bad in ({"tau": 0.0}, {"source": torch.tensor([torch.nan])}):
        with pytest.raises(ValueError, match="tau must be positive"):
            elo_offset(**{"source": one, "reference": other, "elo": 1.0, "elo_reference": 1.0, **bad})


def test_the_mismatch_by_hand() -> None:
    source, reference = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), torch.tensor([0.0, 0.0, 3.0, 9.0, torch.nan])
    found = mismatch_degree(source, reference, 1000, 1000)
    assert found.wins == pytest.approx(2.5 / 4) and found.degree == pytest.approx((0.625 - 0.5) / 0.5)
    p = 1 / (1 + 10 ** (-200 / 400))
    assert mismatch_degree(source, reference, 1200, 1000).degree == pytest.approx((0.625 - p) / p)
    assert mismatch_degree(source, reference, 1000, 1200).degree == pytest.approx((0.625 - (1 - p)) / p)
    with pytest.raises(ValueError, match="same prompts"):
        mismatch_degree(source, reference[:2], 1, 1)
    with pytest.raises(ValueError, match="no prompt"):
        mismatch_degree(source[:1], torch.tensor([torch.nan]), 1, 1)
