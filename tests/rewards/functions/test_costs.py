from __future__ import annotations

import math

import pytest
import torch

from diffalign.rewards.functions.costs import budget_cosine, history_cosine, progress_reward, rank_discount


def test_hapo_by_hand() -> None:
    cost = torch.tensor([0.0, 5.0, 10.0, 15.0, 40.0], dtype=torch.float64)
    best = torch.full_like(cost, 10.0)
    right = history_cosine(cost, best, torch.ones(5, dtype=torch.bool))
    assert right.tolist() == pytest.approx([1.0, math.sqrt(0.5), 0.0, -0.7, -0.7], abs=1e-12)
    wrong = history_cosine(cost, best, torch.zeros(5, dtype=torch.bool))
    assert wrong.tolist() == pytest.approx([0.0, 0.0, 0.0, -math.sqrt(0.5), -1.0], abs=1e-12)
    assert (1 + right > wrong).all()
    assert history_cosine(cost, best, torch.ones(5, dtype=torch.bool), weight=0.5)[1] == right[1] / 2


def test_hapo_without_a_history_pays_nothing_and_is_continuous() -> None:
    cost = torch.linspace(0, 30, 301, dtype=torch.float64)
    best = torch.full_like(cost, 10.0)
    for correct in (True, False):
        reward = history_cosine(cost, best, torch.full_like(cost, correct, dtype=torch.bool))
        assert reward.diff().abs().max() < 0.02
    nothing = history_cosine(torch.tensor([3.0]), torch.tensor([torch.nan]), torch.tensor([True]))
    assert nothing.tolist() == [0.0]


def test_hapo_refuses_costs_below_zero() -> None:
    for cost, best in (([-1.0], [1.0]), ([1.0], [0.0])):
        with pytest.raises(ValueError, match="not negative"):
            history_cosine(torch.tensor(cost), torch.tensor(best), torch.tensor([True]))


def test_hbpo_by_hand() -> None:
    cost = torch.tensor([0.0, 1024.0, 2048.0, 4096.0, 5000.0], dtype=torch.float64)
    yes = torch.ones(5, dtype=torch.bool)
    assert budget_cosine(cost, yes).tolist() == pytest.approx([4, 3.695518, 2.828427, 0, 0], abs=1e-6)
    assert budget_cosine(cost, ~yes).tolist() == [0.0] * 5
    at_budget = torch.full_like(cost, 1024.0)
    bounded = budget_cosine(cost, yes, budget=at_budget)
    assert bounded.tolist() == pytest.approx([3.695518, 3.695518, 2.578427, -0.75, 0], abs=1e-6)
    answered = torch.tensor([True, False, True, True, False])
    assert budget_cosine(cost, yes, answered=answered)[[1, 4]].tolist() == [-1.0, -1.0]
    with pytest.raises(ValueError, match="longest"):
        budget_cosine(cost, yes, longest=0)


@pytest.mark.parametrize(("budget", "anchor"), [(512, 3.923141), (1024, 3.695518), (2048, 2.828427), (2560, 2.222281)])
def test_hbpo_pays_its_anchor_at_the_budget(budget: float, anchor: float) -> None:
    cost = torch.tensor([budget], dtype=torch.float64)
    assert float(budget_cosine(cost, torch.tensor([True]), budget=cost)) == pytest.approx(anchor, abs=1e-6)


def test_rere_by_hand() -> None:
    correct = torch.tensor([[False, True, False], [False, False, False]])
    rank = torch.tensor([[0, 1, 2], [2, 0, 1]])
    shares = [1 / math.log2(i + 2) for i in range(3)]
    expected = [-shares[0] / sum(shares), 1.0, -shares[2] / sum(shares)]
    reward = rank_discount(correct, rank)
    assert reward[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert reward[1].tolist() == [0.0] * 3


def test_rere_punishes_what_is_liked_most_and_sums_to_minus_one() -> None:
    rank = torch.arange(16)[None].flip(1)
    correct = torch.zeros(1, 16, dtype=torch.bool)
    correct[0, 3] = True
    reward = rank_discount(correct, rank)[0]
    hit_share = 1 / math.log2(12 + 2) / sum(1 / math.log2(i + 2) for i in range(16))
    assert float(reward.sum() - 1) == pytest.approx(-1 + hit_share, abs=1e-6)
    assert reward.argmin() == 15
    with pytest.raises(ValueError, match="one rank"):
        rank_discount(correct, torch.zeros_like(rank))


def test_progress_ratchets_up() -> None:
    value, best = torch.tensor([0.5, 0.2, 0.9]), torch.tensor([torch.nan, 0.4, 0.4])
    gain, best = progress_reward(value, best)
    assert gain.tolist() == pytest.approx([0.0, 0.0, 0.5])
    assert best.tolist() == pytest.approx([0.5, 0.4, 0.9])
    gain, best = progress_reward(torch.tensor([0.7, 0.1, 0.9]), best)
    assert gain.tolist() == pytest.approx([0.2, 0.0, 0.0]) and best[0] == pytest.approx(0.7)
