from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.rewards.functions.similarity import (
    fit_exemplars,
    gaussian_exemplar,
    max_avg_similarity,
    neighbour_mean,
    transport_similarity,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bmas_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    y = torch.tensor([[3.0, 0.0]])
    assert float(max_avg_similarity(x, y)) == pytest.approx(((1 + 0 + math.sqrt(0.5)) / 3 + 1) / 2)


def test_bmas_is_symmetric_blind_to_order_and_one_for_equal_sets() -> None:
    x, y = noise(4, 3), noise(6, 3, seed=1)
    assert float(max_avg_similarity(x, y)) == pytest.approx(float(max_avg_similarity(y, x)))
    assert float(max_avg_similarity(x[[2, 0, 3, 1]], y)) == pytest.approx(float(max_avg_similarity(x, y)))
    assert float(max_avg_similarity(x, x)) == pytest.approx(1.0)
    assert torch.autograd.gradcheck(max_avg_similarity, (x.requires_grad_(), y.requires_grad_()))


def test_transport_finds_the_cheapest_assignment() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    x, y = noise(5, 4), noise(5, 4, seed=1)
    cost = 1 - torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1)
    rows, columns = optimize.linear_sum_assignment(cost.numpy())
    best = float(cost[rows, columns].mean())
    assert float(transport_similarity(x, y, blur=0.005, steps=2000)) == pytest.approx(-best, abs=1e-3)
    assert float(transport_similarity(x, y)) <= -best + 1e-6


def test_transport_is_zero_for_equal_sets_and_moves_masses() -> None:
    x = torch.eye(3, dtype=torch.float64)
    assert float(transport_similarity(x, x[[2, 0, 1]], blur=0.01)) == pytest.approx(0.0, abs=1e-6)
    assert float(transport_similarity(x, x[:1])) == pytest.approx(-2 / 3)
    assert torch.autograd.gradcheck(
        lambda a: transport_similarity(a, x, steps=20), noise(2, 3, seed=5).requires_grad_()
    )
    for options in ({"blur": 0.0}, {"steps": 0}):
        with pytest.raises(ValueError, match="positive"):
            transport_similarity(x, x, **options)


def test_neighbours_by_hand() -> None:
    rewards = torch.tensor([1.0, 3.0, 10.0])
    similarity = torch.tensor([[0.3, 0.95, 0.5], [0.95, 0.1, 0.9], [0.5, 0.9, 1.0]])
    mean = neighbour_mean(rewards, similarity)
    assert mean.tolist() == pytest.approx(
        [(1 + 0.95 * 3) / 1.95, (3 + 0.95 * 1 + 0.9 * 10) / 2.85, (10 + 0.9 * 3) / 1.9]
    )
    assert neighbour_mean(rewards, similarity, most=1)[1] == pytest.approx((3 + 0.95) / 1.95)
    assert neighbour_mean(rewards, similarity, self_weight=2.0)[0] == pytest.approx((2 + 0.95 * 3) / 2.95)
    assert torch.equal(neighbour_mean(rewards, similarity, threshold=0.99), rewards)


def test_rewards_that_are_missing_leave_the_mean() -> None:
    rewards = torch.tensor([1.0, torch.nan, 3.0])
    near = torch.tensor([[1.0, 0.95, 0.5], [0.95, 1.0, 0.5], [0.5, 0.5, 1.0]])
    assert neighbour_mean(rewards, near).tolist() == pytest.approx([1.0, 1.0, 3.0])
    assert neighbour_mean(rewards, torch.eye(3))[1].isnan()
    with pytest.raises(ValueError, match="need similarity"):
        neighbour_mean(rewards, torch.eye(2))


def test_exemplars_pick_the_features_that_tell_apart() -> None:
    wanted, other = noise(40, 6), noise(40, 6, seed=1)
    wanted[:, [1, 4]] += torch.tensor([4.0, -3.0], dtype=torch.float64)
    found = fit_exemplars(wanted, other, features=2)
    assert found.chosen.tolist() == [1, 4]
    assert gaussian_exemplar(wanted, found).mean() > 0.95 and gaussian_exemplar(other, found).mean() < 0.05
    assert len(fit_exemplars(wanted, other).chosen) == 6


def test_the_contrast_outweighs_the_spread() -> None:
    """|difference| and deviations per feature: (1, 4) against (0.5, 0.2): a = 5 takes the first, a = 1 the second."""
    half = torch.tensor([[-1.0], [1.0]], dtype=torch.float64) / math.sqrt(2)
    wanted = torch.cat([1 + 2 * half, 0.5 + 0.1 * half], 1)
    other = torch.cat([2 * half, 0.1 * half], 1)
    assert fit_exemplars(wanted, other, features=1, contrast=50).chosen.tolist() == [0]
    assert fit_exemplars(wanted, other, features=1, contrast=5).chosen.tolist() == [1]


def test_the_probability_is_that_of_bayes() -> None:
    index = torch.tensor([1])
    wanted, other = ([torch.tensor([value]) for value in pair] for pair in ((2.0, 0.5), (0.0, 1.0)))
    exemplars = type(fit_exemplars(noise(2, 1), noise(2, 1)))(index, *wanted, *other)
    density = [math.exp(-0.5 * ((1.5 - m) / s) ** 2) / s for m, s in ((2.0, 0.5), (0.0, 1.0))]
    assert float(gaussian_exemplar(torch.tensor([[9.0, 1.5]]), exemplars)) == pytest.approx(density[0] / sum(density))
    with pytest.raises(ValueError, match="N >= 2"):
        fit_exemplars(noise(1, 3), noise(4, 3))
