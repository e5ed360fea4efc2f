"""Laws are compared over 20,000 draws, whose standard error is below 0.004; limits are 0.015 or more."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.resampling import accept, best_random, rejection, softmax

N = 20_000


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(index: torch.Tensor, size: int) -> list[float]:
    return (index.flatten().bincount(minlength=size) / index.numel()).tolist()


def test_best_random_draws_by_the_stated_weights() -> None:
    rewards = torch.tensor([[1.0, 3.0, 0.0, 2.0]]).expand(N, -1)
    assert shares(best_random(rewards, generator=gen()).indices, 4) == pytest.approx(
        [1 / 7, 4 / 7, 1 / 7, 1 / 7], abs=0.015
    )
    other = best_random(rewards, n=2, share_best=1.0, share_other=2.0, generator=gen())
    assert other.indices.shape == (N, 2) and shares(other.indices, 4) == pytest.approx(
        [2 / 7, 1 / 7, 2 / 7, 2 / 7], abs=0.015
    )
    assert best_random(rewards[:3], generator=gen()).indices.shape == (3, 4)
    assert set(best_random(rewards[:50], share_other=0.0, generator=gen()).indices.flatten().tolist()) == {1}


def test_softmax_picks_as_a_user_does() -> None:
    rewards = torch.tensor([[1.0, 3.0, 2.0]]).expand(N, -1)
    assert shares(softmax(rewards, generator=gen()).indices, 3) == pytest.approx([0.0900, 0.6652, 0.2447], abs=0.015)
    cool = softmax(rewards, temperature=0.5, n=2, generator=gen())
    assert shares(cool.indices, 3) == pytest.approx([0.0159, 0.8668, 0.1173], abs=0.015) and cool.indices.shape == (
        N,
        2,
    )
    assert softmax(torch.tensor([[1e30, -1e30]]), generator=gen()).indices.tolist() == [[0]]
    assert softmax(torch.zeros(5, 1), generator=gen()).indices.unique().tolist() == [0]


def test_curation_tends_to_the_exponential_tilt() -> None:
    kinds = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]).expand(N, -1), 64, replacement=True, generator=gen(1))
    rewards = torch.tensor([0.0, 1.0, 2.0])
    means = []
    for k in (1, 4, 64):
        picked = softmax(rewards[kinds[:, :k]], generator=gen(2)).indices
        chosen = kinds.gather(1, picked)
        means.append(rewards[chosen].mean().item())
    tilted = torch.tensor([0.5, 0.3 * math.e, 0.2 * math.e**2])
    assert shares(chosen, 3) == pytest.approx((tilted / tilted.sum()).tolist(), abs=0.02)
    assert means[0] == pytest.approx(0.7, abs=0.02) and means[0] < means[1] < means[2]


def test_accepted_samples_follow_the_tilted_law_exactly() -> None:
    kinds = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]).expand(N, -1), 4, replacement=True, generator=gen(1))
    rewards = torch.tensor([0.0, 1.0, 2.0])[kinds]
    ok = accept(rewards, beta=2.0, r_max=2.5, generator=gen(2))
    tilted = torch.tensor([0.5, 0.3 * math.e**0.5, 0.2 * math.e])
    assert shares(kinds[ok], 3) == pytest.approx((tilted / tilted.sum()).tolist(), abs=0.015)
    rate = (tilted.sum() * math.exp(-1.25)).item()
    assert ok.float().mean().item() == pytest.approx(rate, abs=0.01)


def test_acceptance_has_its_limits() -> None:
    rewards = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 1.0]])
    assert accept(rewards, beta=1e-6, generator=gen()).tolist() == [[False, False, True], [True, True, False]]
    assert accept(rewards, beta=1e9, generator=gen()).all()
    default = accept(rewards[:1].expand(N, -1), generator=gen()).float().mean(0)
    assert default.tolist() == pytest.approx([math.exp(-6), math.exp(-4), 1.0], abs=0.01)
    per_group = accept(rewards, beta=1e-6, r_max=torch.tensor([[1.0], [2.0]]), generator=gen())
    assert per_group.tolist() == [[False, True, True], [True, True, False]]


def test_rejection_fills_its_places_from_the_best() -> None:
    rewards = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    cold = rejection(rewards, n=3, beta=1e-6, generator=gen())
    assert cold.indices.tolist() == [[2, 3, 1]] and cold.weight.tolist() == [[1, 1, 1]]
    hot = rejection(rewards, n=3, beta=1e9, generator=gen())
    assert hot.indices.tolist() == [[0, 1, 2]]  # all pass the first turn; the first in the group win
    many = rejection(rewards.expand(200, -1), n=4, generator=gen())
    assert many.indices.sort(1).values.eq(torch.arange(4)).all() and many.weight.all()
    first = rejection(rewards.expand(N, -1), n=1, generator=gen()).indices
    assert shares(first, 4)[3] == pytest.approx(0, abs=1e-9)  # 3 is accepted before 2 is looked at


def test_default_temperature_of_rejection() -> None:
    rewards = torch.tensor([[1.0, 0.0]]).expand(N, -1)
    index = rejection(rewards.flip(1), n=1, generator=gen()).indices
    assert (index == 0).float().mean().item() == pytest.approx(math.exp(-2), abs=0.01)


RULES = [
    lambda r, m=None: best_random(r, generator=gen(), mask=m),
    lambda r, m=None: softmax(r, n=8, generator=gen(), mask=m),
    lambda r, m=None: rejection(r, n=4, generator=gen(), mask=m),
]


@pytest.mark.parametrize("rule", RULES)
def test_unusable_samples_are_never_drawn_and_draws_are_the_generators(rule) -> None:
    rewards = torch.tensor([[math.nan, 1.0, 9.0, 0.5], [math.nan, math.inf, 3.0, 2.0]]).repeat(50, 1).requires_grad_()
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0]]).repeat(50, 1)
    index, weight = rule(rewards, mask)
    drawn = index[weight > 0]
    assert set(drawn.tolist()) == {1, 3} and (weight[1::2] == 0).all() and (weight[::2, 0] == 1).all()
    assert torch.equal(rule(rewards, mask).indices, index) and not weight.requires_grad
    assert index.min() >= 0 and index.max() < 4


def test_rejection_leaves_empty_places_when_samples_run_out() -> None:
    out = rejection(torch.tensor([[1.0, math.nan, 2.0]]), n=3, generator=gen())
    assert out.weight.tolist() == [[1, 1, 0]] and set(out.indices[0, :2].tolist()) == {0, 2}


def test_bad_input_is_refused() -> None:
    r = torch.zeros(1, 3)
    for call, name in (
        (lambda: best_random(r, share_best=0.0, generator=gen()), "share_best"),
        (lambda: best_random(r, share_other=-0.1, generator=gen()), "share_other"),
        (lambda: best_random(r, n=0, generator=gen()), "n must"),
        (lambda: softmax(r, temperature=0.0, generator=gen()), "temperature"),
        (lambda: softmax(r, n=0, generator=gen()), "n must"),
        (lambda: accept(r, beta=0.0, generator=gen()), "beta"),
        (lambda: rejection(r, n=4, generator=gen()), "1..G = 3"),
        (lambda: rejection(r, n=0, generator=gen()), "1..G = 3"),
        (lambda: softmax(r[0], generator=gen()), r"\(B, G\)"),
    ):
        with pytest.raises(ValueError, match=name):
            call()
