from __future__ import annotations

import pytest
import torch

from diffalign.losses import draws, preference

LIKE = torch.zeros(2, 3, 4, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shared_noise_is_one_draw_per_group_and_own_noise_one_per_sample() -> None:
    shared, own = draws.shared_noise(LIKE, seeded(0)), draws.own_noise(LIKE, seeded(0))
    assert shared.shape == own.shape == LIKE.shape
    assert torch.equal(shared[:, 0], shared[:, 1]) and torch.equal(shared[:, 0], shared[:, 2])
    assert (shared[0] - shared[1]).abs().min() > 0
    assert (own[:, 0] - own[:, 1]).abs().min() > 0
    scalars = draws.shared_noise(LIKE[..., 0], seeded(0))
    assert torch.equal(scalars[:, 0], scalars[:, 2]) and scalars[0, 0] != scalars[1, 0]


def test_noise_follows_its_generator_and_its_likeness() -> None:
    for noise in (draws.shared_noise, draws.own_noise):
        assert torch.equal(noise(LIKE, seeded(1)), noise(LIKE, seeded(1)))
        assert not torch.equal(noise(LIKE, seeded(1)), noise(LIKE, seeded(2)))
        assert noise(LIKE.half()).dtype == torch.float16
    torch.manual_seed(3)
    first = draws.own_noise(LIKE)
    torch.manual_seed(3)
    assert torch.equal(first, draws.own_noise(LIKE))


def test_noise_is_standard_normal_and_shared_noise_may_be_written_to() -> None:
    noise = draws.own_noise(torch.zeros(1, 1, 20000), seeded(0))
    assert noise.mean().abs() < 0.03 and (noise.std() - 1).abs() < 0.03
    shared = draws.shared_noise(LIKE, seeded(0))
    shared[0, 0] = 7
    assert shared[0, 1].max() < 7


def test_pairs_are_stacked_winners_first() -> None:
    winner, loser = draws.winner_loser(torch.arange(6.0))
    assert winner.tolist() == [0, 1, 2] and loser.tolist() == [3, 4, 5]
    for bad in (torch.zeros(3, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="even first axis"):
            draws.winner_loser(bad)


def dpo(winner: torch.Tensor, loser: torch.Tensor) -> torch.Tensor:
    return preference.logistic(preference.pair_margin(winner, loser, beta=2.0))


def test_inside_averages_log_ratios_outside_losses() -> None:
    winner, loser = torch.randn(2, 4, 6, dtype=torch.float64)
    inside, outside = (f(dpo, winner, loser) for f in (draws.average_inside, draws.average_outside))
    assert torch.equal(inside, dpo((winner[0] + winner[1] + winner[2] + winner[3]) / 4, loser.mean(0)))
    by_hand = sum(dpo(w, v) for w, v in zip(winner, loser, strict=True)) / 4
    assert torch.allclose(outside, by_hand, atol=1e-12)
    assert inside.shape == outside.shape == (6,)
    assert draws.average_inside(dpo, winner[:, 0], loser[:, 0]) < draws.average_outside(dpo, winner[:, 0], loser[:, 0])
    assert (inside < outside).all()  # Jensen: the logistic loss is strictly convex


def test_the_two_agree_for_a_linear_link_and_for_one_draw() -> None:
    winner, loser = torch.randn(2, 3, 5, dtype=torch.float64)

    def linear(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return preference.linear(a - b)

    pairs = [(linear, winner, loser), (dpo, winner[:1], loser[:1])]
    for call in pairs:
        assert torch.allclose(draws.average_inside(*call), draws.average_outside(*call), atol=1e-12)


def test_unequal_or_missing_draws_are_refused() -> None:
    for average in (draws.average_inside, draws.average_outside):
        for bad in ((torch.zeros(2, 3), torch.zeros(3, 3)), (), (torch.zeros(0, 3),), (torch.tensor(1.0),)):
            with pytest.raises(ValueError, match="number of draws"):
                average(dpo, *bad)
    with pytest.raises(ValueError, match="group of two"):
        draws.shared_noise(torch.zeros(3))
