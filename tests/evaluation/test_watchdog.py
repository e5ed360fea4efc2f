"""Measures of pictures on pictures whose answer is known; the rule on evaluations made up for each case."""

from __future__ import annotations

import json
import math

import pytest
import torch

from diffalign.evaluation.watchdog import (
    Limits,
    Reading,
    Watch,
    clipped_share,
    high_frequency_share,
    paired,
    saturation,
    spread,
)

# --- measures ---------------------------------------------------------------------------------------------------------


def wave(cycles, size=32):
    """(1, 3, S, S): a cosine of so many cycles across the picture."""
    x = torch.arange(size) / size
    return (0.5 + 0.4 * torch.cos(2 * math.pi * cycles * x)).expand(1, 3, size, size)


@pytest.mark.parametrize(("cycles", "share"), [(1, 0.0), (8, 0.0), (9, 1.0), (16, 1.0)])
def test_a_wave_is_low_up_to_half_the_highest_frequency_and_high_beyond(cycles, share):
    for image in (wave(cycles), wave(cycles).mT):
        assert float(high_frequency_share(image)) == pytest.approx(share, abs=1e-9)


def test_two_waves_share_their_energy_and_white_noise_has_three_quarters():
    mixed = wave(2) + 0.5 * (wave(12) - 0.5)
    assert float(high_frequency_share(mixed)) == pytest.approx(0.25 / 1.25, abs=1e-6)
    grey = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    low = (2 * 8 + 1) ** 2 / 32**2  # frequencies up to 8 cycles in each direction
    assert float(high_frequency_share(grey).mean()) == pytest.approx(1 - low, abs=0.01)


def test_corners_of_the_measures():
    flat = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8), torch.full((3, 8, 8), 0.5)])
    assert high_frequency_share(flat).tolist() == [0, 0, 0] == saturation(flat).tolist()
    assert clipped_share(flat).tolist() == [1, 1, 0]
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.2, 0.2, 0.2]])[:, :, None, None].expand(-1, -1, 4, 4)
    assert saturation(colours).tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_spread_is_the_mean_distance_of_pairs():
    images = torch.stack([torch.full((3, 4, 4), value) for value in (0.1, 0.2, 0.5)])
    assert float(spread(images)) == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    assert float(spread(images[:1])) == 0 == float(spread(images[:1].expand(3, -1, -1, -1)))


# --- paired changes ---------------------------------------------------------------------------------------------------


def test_a_change_is_paired_by_prompt_and_leaves_out_what_was_not_scored():
    then = torch.tensor([0.0, 1.0, 0.0, math.nan, 5.0])
    now = torch.tensor([1.0, 2.0, 3.0, 7.0, math.nan])
    mean, errors = paired(now, then)  # changes 1, 1, 3: standard deviation 2 / sqrt(3), standard error 2 / 3
    assert mean == pytest.approx(5 / 3) and errors == pytest.approx(2.5)
    assert paired(then, then) == (0.0, 0.0)
    assert paired(then + 1, then) == (1.0, math.inf) and paired(then[:1], now[:1]) == (0.0, 0.0)


# --- the rule ---------------------------------------------------------------------------------------------------------

P = 200


def reading(step, noise=0.05, **means):
    """Prompt means around the given values; the same prompts each time."""
    scores = {}
    for i, (name, mean) in enumerate(means.items()):
        prompts = torch.rand(P, generator=torch.Generator().manual_seed(i))
        own = torch.randn(P, generator=torch.Generator().manual_seed(100 * step + i))
        scores[name] = mean + 0.3 * (prompts - prompts.mean()) + noise * (own - own.mean())
    return Reading(step, scores)


def alarms(rows, patience=1, **limits):
    """Steps at which (trained, held out, measure) of each row raise an alarm."""
    watch = Watch(["trained"], ["held"], ["picture"], Limits(patience=patience, **limits))
    steps = []
    for step, (trained, held, picture) in enumerate(rows):
        if watch.observe(reading(step, trained=trained, held=held, picture=picture)):
            steps.append(step)
    return steps


def test_a_reward_that_rises_while_the_held_out_one_falls():
    assert alarms([(0.0, 0.5, 1.0), (0.1, 0.49, 1.0), (0.2, 0.47, 1.0)]) == [1, 2]


def test_a_held_out_reward_that_first_rises_is_held_against_its_best():
    assert alarms([(0.0, 0.4, 1.0), (0.1, 0.5, 1.0), (0.2, 0.49, 1.0), (0.3, 0.45, 1.0)]) == [2, 3]


def test_both_rise_both_fall_or_nothing_moves():
    assert alarms([(0.0, 0.4, 1.0), (0.1, 0.45, 2.0), (0.2, 0.5, 3.0)]) == []
    assert alarms([(0.3, 0.5, 1.0), (0.2, 0.4, 2.0), (0.1, 0.3, 3.0)]) == []
    assert alarms([(0.3, 0.5, 1.0)] * 4) == []


def test_a_fall_within_the_noise_counts_only_when_the_pictures_have_changed():
    # Differences of two evaluations have a standard error of .05 sqrt(2 / 200) = .005, the pictures' too.
    then = (0.0, 0.5, 1.0)
    assert alarms([then, (0.1, 0.4925, 1.0)]) == []
    for picture in (1.2, 0.8):
        assert alarms([then, (0.1, 0.4925, picture)]) == [1]
    assert alarms([then, (0.1, 0.4925, 1.2)], change=0.3) == [], "beyond doubt, but small"
    assert alarms([then, (0.1, 0.4925, 1.2)], certain=1e9) == []
    assert alarms([then, (0.1, 0.4985, 1.2)]) == [], "pictures alone prove nothing"
    assert alarms([then, (0.1, 0.486, 1.0)]) == [1]


def test_one_evaluation_alone_is_not_believed():
    rows = [(0.0, 0.5, 1.0), (0.1, 0.47, 1.0), (0.1, 0.51, 1.0), (0.2, 0.47, 1.0), (0.3, 0.46, 1.0)]
    assert alarms(rows, patience=2) == [4]
    rows[2] = (0.1, 0.4995, 1.0)  # no new best, and nothing to say against it
    assert alarms(rows, patience=2) == [4]


def test_the_alarm_says_what_happened_since_when():
    watch = Watch(["trained"], ["held"], ["picture"], Limits(patience=1))
    watch.observe(reading(3, trained=0.0, held=0.5, picture=1.0))
    (alarm,) = watch.observe(reading(7, trained=0.2, held=0.4, picture=1.5))
    assert (alarm.held_out, alarm.since) == ("held", 3)
    for part in ("trained rose by 0.2", "held fell by 0.1", "picture went from 1 to 1.5"):
        assert part in alarm.text


def test_it_goes_on_after_a_stop_from_plain_json():
    rows = [(0.0, 0.5, 1.0), (0.1, 0.47, 1.0), (0.2, 0.46, 1.0)]
    watch = Watch(["trained"], ["held"], ["picture"])
    for step, (trained, held, picture) in enumerate(rows[:2]):
        values = reading(step, trained=trained, held=held, picture=picture)
        values.scores["held"][0] = math.nan
        assert watch.observe(values) == []
    again = Watch(["trained"], ["held"], ["picture"])
    again.load_state_dict(json.loads(json.dumps(watch.state_dict(), allow_nan=False)))
    last = reading(2, trained=0.2, held=0.46, picture=1.0)
    assert again.observe(last) == watch.observe(last) != []
    fresh = Watch(["trained"], ["held"], ["picture"])
    fresh.load_state_dict({})
    assert fresh.observe(last) == []
