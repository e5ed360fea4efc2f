from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.group_filters import hopeful, not_saturated, pass_rate, unsolved_and_varied, variance

NAN = math.nan
FILTERS = [variance, pass_rate, not_saturated, unsolved_and_varied, lambda r, **k: hopeful(r, at_least=0.5, **k)]


def test_variance_by_hand() -> None:
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 1.0, 2.0], [0.1, 0.1, 0.1001]], dtype=torch.float64)
    assert variance(rewards).tolist() == [False, True, True]
    assert variance(rewards, above=0.66).tolist() == [False, True, False]  # population variance 2/3
    assert variance(rewards, above=0.67).tolist() == [False, False, False]
    assert variance(torch.tensor([[0.0, 2.0]]), above=1.0).tolist() == [False]  # strictly above


def test_pass_rate_by_hand() -> None:
    passed = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    assert pass_rate(passed).tolist() == [False, True, True, False]
    assert pass_rate(passed, low=0.25).tolist() == [False, False, True, False]
    assert pass_rate(passed.float(), high=0.75).tolist() == [False, True, False, False]
    assert pass_rate(passed, low=0.2, high=0.8).tolist() == [False, True, True, False]


def test_saturation_needs_both_and_the_training_mask_either() -> None:
    rewards = torch.tensor([[0.95, 0.97], [0.85, 1.0], [0.5, 0.5], [0.2, 0.8]])
    assert not_saturated(rewards).tolist() == [False, True, True, True]  # means .96 .925 .5 .5, std .01 .075 0 .3
    assert unsolved_and_varied(rewards).tolist() == [False, False, False, True]
    assert not_saturated(rewards, mean_above=0.97).tolist() == [True] * 4
    assert not_saturated(rewards, std_below=0.08).tolist() == [False, False, True, True]
    assert unsolved_and_varied(rewards, mean_above=0.95).tolist() == [False, True, False, True]
    assert unsolved_and_varied(rewards, std_below=0.31).tolist() == [False] * 4
    between = torch.tensor([[0.85, 0.94], [0.87, 0.96]])  # means .895 and .915, std .045: the defaults lie between
    assert not_saturated(between).tolist() == [True, False]
    low = torch.tensor([[0.4, 0.49], [0.4, 0.51]])  # std .045 and .055
    assert unsolved_and_varied(low).tolist() == [False, True]
    edge = torch.tensor([[0.25, 0.75]])  # mean .5, std .25, exact in binary
    assert unsolved_and_varied(edge, mean_above=0.5, std_below=0.25).tolist() == [True]
    assert not_saturated(edge, mean_above=0.5, std_below=0.5).tolist() == [True]
    assert not_saturated(edge, mean_above=0.4, std_below=0.25).tolist() == [True]
    assert unsolved_and_varied(torch.tensor([[0.8, 0.99], [0.83, 1.0]])).tolist() == [True, False]


def test_hopeful() -> None:
    rewards = torch.tensor([[0.1, 0.5], [0.1, 0.4], [0.0, NAN]])
    assert hopeful(rewards, at_least=0.5).tolist() == [True, False, False]


@pytest.mark.parametrize("keep", FILTERS)
def test_unusable_samples_are_left_out(keep) -> None:
    rewards = torch.tensor([[0.0, 1.0, NAN, 0.3], [NAN, math.inf, -math.inf, NAN]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    assert keep(rewards, mask=mask).tolist() == [True, False]
    assert keep(torch.zeros(2, 3), mask=torch.zeros(2, 3)).tolist() == [False, False]
    same = torch.tensor([[0.7, NAN, 0.7, 0.1]])
    cut = torch.tensor([[1, 1, 1, 0]])
    assert keep(same, mask=cut).tolist() == keep(torch.tensor([[0.7, 0.7]])).tolist()


@pytest.mark.parametrize("keep", FILTERS)
def test_order_does_not_matter(keep) -> None:
    rewards = torch.rand(50, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keep(rewards), keep(rewards.flip(1))) and keep(rewards).dtype == torch.bool


def test_bad_input_is_refused() -> None:
    r = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="above"):
        variance(r, above=-1.0)
    with pytest.raises(ValueError, match="below high"):
        pass_rate(r, low=0.5, high=0.5)
    with pytest.raises(ValueError, match="low"):
        pass_rate(r, low=-0.1)
    with pytest.raises(ValueError, match="high"):
        pass_rate(r, high=1.1)
    for keep in (not_saturated, unsolved_and_varied):
        with pytest.raises(ValueError, match="std_below"):
            keep(r, std_below=-0.1)
    with pytest.raises(ValueError, match=r"\(B, G\)"):
        variance(r[0])
