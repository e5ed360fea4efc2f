from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.selection import best, best_worst, rank_then_point, topk

R = torch.tensor([[0.3, 2.0, -1.0, 1.0], [5.0, 4.0, 7.0, 6.0]])
NAN = math.nan


def test_best_and_topk() -> None:
    assert best(R).indices.tolist() == [[1], [2]] and best(R).weight.tolist() == [[1.0], [1.0]]
    assert topk(R, n=3).indices.tolist() == [[1, 3, 0], [2, 3, 0]]
    assert topk(R, n=4).indices.shape == (2, 4)


def test_best_worst() -> None:
    index, weight = best_worst(R)
    assert index.tolist() == [[1, 2], [2, 1]] and weight.tolist() == [[1, 1], [1, 1]]
    assert best_worst(R, gap=3.0).weight[:, 0].tolist() == [0, 0]  # 3 is not further apart than 3
    assert best_worst(R, gap=2.99).weight.tolist() == [[1, 1], [1, 1]]
    assert best_worst(torch.full((1, 3), 2.0)).weight.tolist() == [[0, 0]]
    assert best_worst(torch.tensor([[0.0, 0.5]])).weight.tolist() == [[1, 1]]
    assert best_worst(torch.full((1, 3), 2.0), gap=-math.inf).weight.tolist() == [[1, 1]]


def test_unscored_and_masked_samples_are_never_selected() -> None:
    rewards = torch.tensor([[NAN, 1.0, math.inf, 0.5, 9.0], [NAN, NAN, -math.inf, 1.0, 3.0]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    index, weight = topk(rewards, n=3, mask=mask)
    assert index[0, :2].tolist() == [1, 3] and weight.tolist() == [[1, 1, 0], [0, 0, 0]]
    index, weight = best_worst(rewards, gap=-math.inf, mask=mask)
    assert index[0].tolist() == [1, 3] and weight.tolist() == [[1, 1], [0, 0]]
    assert best_worst(rewards).indices[1].tolist() == [4, 3]
    assert best(rewards, mask=mask).weight.tolist() == [[1], [0]]


def test_ties_go_to_the_first() -> None:
    rewards = torch.tensor([[1.0, 3.0, 3.0, 1.0]])
    assert topk(rewards, n=4).indices.tolist() == [[1, 2, 0, 3]] and best_worst(rewards).indices.tolist() == [[1, 0]]


def test_a_group_of_one() -> None:
    assert best(torch.tensor([[2]])).indices.tolist() == [[0]]
    assert best_worst(torch.tensor([[2.0]])).weight.tolist() == [[0, 0]]


def test_winners_first_then_points() -> None:
    scores = torch.tensor([[3.0, 9.0, 4.0, 1.0, 8.0]])
    wins = torch.tensor([[1.0, 0.4, 0.6, 0.0, 0.5]])
    index, weight = rank_then_point(scores, wins)
    assert index.tolist() == [[2, 3]] and weight.tolist() == [[1, 1]]  # 9 lost, 8 is neither
    assert rank_then_point(torch.tensor([[10.0, 9.0]]), torch.tensor([[1.0, 0.0]])).weight.tolist() == [[1, 1]]
    assert rank_then_point(torch.tensor([[9.0, 9.0]]), torch.tensor([[1.0, 0.0]])).weight.tolist() == [[0, 0]]
    assert rank_then_point(torch.tensor([[9.0, 3.0]]), torch.tensor([[1.0, 1.0]])).weight.tolist() == [[0, 0]]
    assert rank_then_point(torch.tensor([[9.0, 3.0]]), torch.tensor([[0.0, 0.5]])).weight.tolist() == [[0, 0]]
    masked = rank_then_point(scores, wins, mask=torch.tensor([[1, 1, 0, 1, 1]]))
    assert masked.indices.tolist() == [[0, 3]]
    assert rank_then_point(torch.tensor([[NAN, 3.0]]), torch.tensor([[1.0, 0.0]])).weight.tolist() == [[0, 0]]


@pytest.mark.parametrize("rule", [best, best_worst, lambda r: topk(r, n=3), lambda r: rank_then_point(r, r / 10)])
def test_selection_follows_a_permutation_and_is_detached(rule) -> None:
    rewards = torch.tensor([[4.0, 1.0, 9.0, 6.0]], requires_grad=True)
    order = torch.tensor([2, 0, 3, 1])
    index, weight = rule(rewards)
    moved, same = rule(rewards[:, order])
    assert torch.equal(order[moved[0]], index[0]) and torch.equal(weight, same)
    assert not weight.requires_grad and index.dtype == torch.int64 and weight.dtype == torch.float32


def test_bad_input_is_refused() -> None:
    for n in (0, 5):
        with pytest.raises(ValueError, match="n must be in 1..G = 4"):
            topk(R, n=n)
    with pytest.raises(ValueError, match=r"\(B, G\)"):
        best(R[0])
    with pytest.raises(ValueError, match="gap"):
        best_worst(R, gap=NAN)
    with pytest.raises(ValueError, match="mask"):
        best(R, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match="floating"):
        rank_then_point(R, torch.ones(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="one shape"):
        rank_then_point(R, torch.ones(2, 3))
