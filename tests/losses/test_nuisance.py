"""A nuisance paid for alone, and how far a reward follows it."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.nuisance import near_target, nuisance_correlation

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_near_target() -> None:
    assert torch.allclose(near_target(t(0, 3, 4, 5, 9), target=4.0), t(0, 0.75, 1, 0.75, -0.25))
    assert near_target(torch.tensor([4]), target=4.0).dtype == torch.float32
    with pytest.raises(ValueError, match="target"):
        near_target(t(1), target=0.0)


def test_correlation_by_hand() -> None:
    # deviations (-2, 0, 2) and (-1, -2, 3): 8 / sqrt(8 * 14)
    assert nuisance_correlation(t(1, 3, 5), t(4, 3, 8)).item() == pytest.approx(8 / math.sqrt(112))


def test_correlation_knows_affine_maps() -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert nuisance_correlation(3 * x + 7, x).item() == pytest.approx(1.0)
    assert nuisance_correlation(-0.2 * x + 7, x).item() == pytest.approx(-1.0)
    other = x.flip(1)
    assert nuisance_correlation(x, other).item() == pytest.approx(nuisance_correlation(2 * x - 9, other).item())


def test_unscored_samples_are_left_out_on_either_side() -> None:
    a, b = t(1, 3, 5, math.nan, 7), t(4, 3, 8, 2, math.inf)
    assert torch.equal(nuisance_correlation(a, b), nuisance_correlation(a[:3], b[:3]))


@pytest.mark.parametrize("a", [t(0.1, 0.1, 0.1), t(math.nan, math.nan, math.nan), t(1, math.nan, math.nan)])
def test_no_spread_no_correlation(a: torch.Tensor) -> None:
    assert nuisance_correlation(a, t(1, 2, 4)).item() == 0.0
    assert nuisance_correlation(t(1, 2, 4), a).item() == 0.0


def test_it_is_a_number_to_log() -> None:
    out = nuisance_correlation(t(1, 2).requires_grad_(), t(2, 1))
    assert not out.requires_grad and out.shape == () and out.item() == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="share one shape"):
        nuisance_correlation(t(1), t(1, 2))
