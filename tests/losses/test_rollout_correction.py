from __future__ import annotations

import pytest
import torch

from diffalign.losses import rollout_correction as R
from tests.losses.released import MASK, X

F64 = torch.float64
NAN = float("nan")


def valid(x: torch.Tensor) -> list[float]:
    found: list[float] = x[MASK.bool()].tolist()
    return found


def test_released_weights() -> None:
    """verl 0.9.1 rollout_corr_helper.py, threshold 1.3 (truncated) and 0.8_1.3 (IcePop)."""
    tokens = [1.28402542, 0.70468809, 1.0512711, 1.3, 0.86070798, 1.3, 0.63762815, 1.3, 0.90483742]
    assert valid(R.token_weights(X, upper=1.3, mask=MASK)) == pytest.approx(tokens)
    banded = [1.28402542, 0, 1.0512711, 0, 0.86070798, 0, 0, 0, 0.90483742]
    assert valid(R.token_weights(X, upper=1.3, lower=0.8, mask=MASK)) == pytest.approx(banded)
    rows = [1.3] * 4 + [0.74081822] * 3 + [1.3] * 2
    assert valid(R.sequence_weights(X, upper=1.3, mask=MASK)) == pytest.approx(rows)
    assert (R.sequence_weights(X, upper=1.3, lower=0.8, mask=MASK) == 0).all()
    unit = [1.23686537, 0.67880611, 1.01265971, 1.25225323, 0.82909565, 1.25225323, 0.61420916, 1.25225323, 0.87160429]
    assert valid(R.unit_mean(R.token_weights(X, upper=1.3, mask=MASK), mask=MASK)) == pytest.approx(unit)


@pytest.mark.parametrize("weights", [R.token_weights, R.sequence_weights])
def test_weights_are_bounded_by_two_detached_and_blind_to_padding(weights) -> None:
    x = torch.tensor([[5.0, NAN], [0.1, -0.2]], dtype=F64, requires_grad=True)
    out = weights(x, mask=torch.tensor([[1, 0], [1, 1]]))
    assert out[0].tolist() == [2.0, 0.0] and not out.requires_grad
    with pytest.raises(ValueError, match="upper"):
        weights(X, upper=0.0)


def test_unit_mean_of_nothing_is_nothing() -> None:
    assert (R.unit_mean(torch.zeros(2, 2)) == 0).all()
    assert R.unit_mean(torch.tensor([[1.0, 3.0]])).tolist() == [[0.5, 1.5]]


def test_ratios_within_bounds() -> None:
    """verl's token_k1 compares exp(-x)."""
    x = torch.tensor([[0.5, -0.5, 0.0, 3.0]], dtype=F64).log1p().clamp(max=9.0)
    x = torch.tensor([[1.5, 0.5, 1.0, 4.0]], dtype=F64).log()
    found = R.within_ratio(x, lower=0.6, upper=1.5, mask=torch.tensor([[1, 1, 0, 1]]))
    assert found.tolist() == [[True, False, False, False]]
    assert R.within_ratio(x, lower=0.2, upper=2.5).all()
    for bad in ({"lower": 0.0, "upper": 1.0}, {"lower": 2.0, "upper": 1.0}):
        with pytest.raises(ValueError, match="lower"):
            R.within_ratio(x, **bad)


def test_sequences_that_left_are_kept_only_if_they_were_good() -> None:
    x = torch.tensor([[-0.4, -0.2, 99.0], [-0.4, -0.2, 0.0], [-0.1, 0.0, 0.0], [NAN, -0.3, -0.3]], dtype=F64)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]])
    adv = torch.tensor([-1.0, -1.0, 0.0, -1.0])
    kept = R.off_policy_sequence_mask(x, adv, threshold=0.21, mask=mask)
    assert kept.tolist() == [[False] * 3, [True] * 3, [True] * 3, [True] * 3]
    assert R.off_policy_sequence_mask(x, adv.abs(), threshold=0.01)[0].all()
    assert not R.off_policy_sequence_mask(x[3:], adv[3:], threshold=0.19).any()
    with pytest.raises(ValueError, match="threshold"):
        R.off_policy_sequence_mask(x, adv, threshold=0.0)


def test_top_entropy_tokens() -> None:
    entropy = torch.tensor([[0.1, 0.5, 0.3, 9.0], [0.9, 0.2, 0.7, 0.4]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    kept = R.top_entropy_mask(entropy, share=0.5, mask=mask)
    assert entropy[kept].tolist() == pytest.approx([0.5, 0.9, 0.7, 0.4])
    assert torch.equal(R.top_entropy_mask(entropy, share=1.0, mask=mask), mask.bool())
    assert R.top_entropy_mask(entropy, share=0.0).sum() == 1 and R.top_entropy_mask(entropy).sum() == 2
    assert not R.top_entropy_mask(entropy, mask=torch.zeros(2, 4)).any()
    with pytest.raises(ValueError, match="share"):
        R.top_entropy_mask(entropy, share=1.5)


def test_small_means_are_scaled_up_too() -> None:
    assert R.unit_mean(torch.tensor([[0.25, 0.75]])).tolist() == [[0.5, 1.5]]


def test_an_advantage_between_0_and_1_counts_as_positive() -> None:
    x = torch.full((1, 2), -9.0)
    assert R.off_policy_sequence_mask(x, torch.tensor([0.5]), threshold=0.1).all()
