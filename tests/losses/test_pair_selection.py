from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.pair_selection import above_margin, agree, cross_small_loss, large_margin, largest, small_margin

M = torch.tensor([0.5, -2.0, 0.1, 1.0, -0.3])


def picked(mask: torch.Tensor) -> list[int]:
    return mask.nonzero()[:, 0].tolist()


def test_largest() -> None:
    assert picked(largest(M, keep=2)) == [0, 3] and picked(largest(M, keep=5)) == [0, 1, 2, 3, 4]
    assert picked(largest(torch.tensor([1.0, 2.0, 2.0, 2.0]), keep=2)) == [1, 2]
    assert picked(largest(torch.tensor([math.nan, 1.0, math.nan]), keep=2)) == [1]


def test_margins_by_hand() -> None:
    assert picked(small_margin(M, keep=2)) == [2, 4]
    assert picked(large_margin(M, keep=2)) == [1, 3]
    assert picked(above_margin(M, threshold=0.5)) == [1, 3]
    assert picked(small_margin(3 * M, keep=3)) == picked(small_margin(M, keep=3))
    assert picked(small_margin(torch.tensor([math.nan, 3.0]), keep=1)) == [1]
    assert picked(above_margin(torch.tensor([math.nan, 3.0]), threshold=0.0)) == [1]


def test_agreement() -> None:
    other = torch.tensor([2.0, 0.1, 0.0, 3.0, -9.0])
    assert picked(agree(M, other)) == [0, 3, 4]
    assert picked(agree(M[agree(M, other)], other[agree(M, other)])) == [0, 1, 2]  # filtering twice is filtering once
    assert agree(torch.zeros(2), torch.zeros(2)).tolist() == [False, False]
    assert agree(torch.tensor([1e-30]), torch.tensor([1e-30])).tolist() == [True]


def test_each_model_trains_on_what_the_other_finds_easy() -> None:
    a, b = torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.8, 0.2, 0.6])
    for_a, for_b = cross_small_loss(a, b, keep=2)
    assert picked(for_a) == [1, 2] and picked(for_b) == [0, 2]


@pytest.mark.parametrize("rule", [small_margin, large_margin, largest, lambda m, keep: above_margin(m, threshold=0.4)])
def test_rules_follow_a_permutation_and_are_detached(rule) -> None:
    order = torch.tensor([3, 1, 4, 0, 2])
    mask = rule(M.clone().requires_grad_(), keep=3)
    assert torch.equal(rule(M[order], keep=3), mask[order]) and mask.dtype == torch.bool
    assert torch.equal(rule((M * 8).half(), keep=3), rule(M * 8, keep=3))


def test_bad_input_is_refused() -> None:
    for keep in (0, 6):
        with pytest.raises(ValueError, match="1..N = 5"):
            largest(M, keep=keep)
    with pytest.raises(ValueError, match=r"\(N,\)"):
        small_margin(M[None], keep=1)
    with pytest.raises(ValueError, match="N >= 1"):
        above_margin(torch.zeros(0), threshold=0.1)
    with pytest.raises(ValueError, match="threshold"):
        above_margin(M, threshold=-0.1)
    with pytest.raises(ValueError, match="one shape"):
        agree(M, M[:2])
    with pytest.raises(ValueError, match="one shape"):
        cross_small_loss(M, M[:2], keep=1)
