from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.token_credit import outcome_weights, running_mean

F64 = torch.float64


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_running_mean() -> None:
    scores = torch.tensor([[1.0, 3.0, -1.0], [4.0, float("nan"), 2.0]], dtype=F64)
    mask = torch.tensor([[1, 1, 1], [1, 0, 1]])
    assert running_mean(scores, mask).tolist() == [[1.0, 2.0, 1.0], [4.0, 0.0, 3.0]]
    assert running_mean(scores[:1]).tolist() == [[1.0, 2.0, 1.0]]
    assert running_mean(scores, torch.tensor([[0, 0, 1], [0, 0, 0]])).tolist() == [[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]


def test_weights_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0, -10.0], [1.0, 3.0, -10.0]], dtype=F64)
    p = [sigmoid(1.0), sigmoid(2.0), sigmoid(-2.0)]
    out = outcome_weights(scores, torch.tensor([True, False]))
    assert out[0].tolist() == pytest.approx([2 * p[0] - 1, 2 * p[1] - 1, 0.0])
    assert out[1].tolist() == pytest.approx([0.0, 0.0, 1 - 2 * p[2]])
    high = outcome_weights(scores, torch.tensor([True, False]), threshold=0.75)
    assert high[0].tolist() == pytest.approx([0.0, (p[1] - 0.75) / 0.25, 0.0], abs=1e-12)
    low = outcome_weights(scores, torch.tensor([True, False]), threshold=0.0)
    assert low[0].tolist() == pytest.approx(p) and low[1].tolist() == pytest.approx([1 - q for q in p])


def test_an_undecided_token_weighs_nothing() -> None:
    assert (outcome_weights(torch.zeros(2, 3), torch.tensor([True, False])) == 0).all()
    sure = outcome_weights(torch.full((2, 3), 1e4), torch.tensor([True, False]))
    assert sure.tolist() == [[1.0] * 3, [0.0] * 3]
    assert outcome_weights(torch.full((1, 1), 1e4), torch.tensor([True])).tolist() == [[1.0]]


def test_masked_tokens_weigh_nothing_and_nothing_learns() -> None:
    scores = torch.tensor([[2.0, float("nan"), 2.0]], requires_grad=True)
    out = outcome_weights(scores, torch.tensor([True]), mask=torch.tensor([[1, 0, 1]]), threshold=0.0)
    assert out[0].tolist() == pytest.approx([sigmoid(2.0), 0.0, sigmoid(2.0)]) and not out.requires_grad
    assert outcome_weights(torch.ones(1, 2).bfloat16(), torch.tensor([True])).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        running_mean(torch.zeros(3))
    with pytest.raises(ValueError, match="positive"):
        outcome_weights(torch.zeros(2, 3), torch.tensor([True]))
    for threshold in (1.0, -0.1):
        with pytest.raises(ValueError, match="threshold"):
            outcome_weights(torch.zeros(2, 3), torch.tensor([True, False]), threshold=threshold)
    with pytest.raises(ValueError, match="mask"):
        outcome_weights(torch.zeros(2, 3), torch.tensor([True, False]), mask=torch.ones(2, 2))
