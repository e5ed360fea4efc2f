"""Axis ticks: inside the range, evenly spaced, round, with short labels."""

from __future__ import annotations

import math

import pytest

from diffalign.report.ticks import nice_ticks, padded_range, tick_labels

RANGES = [(0.0, 1.0), (0.447, 0.561), (-3.2e-5, 1.1e-5), (1.0, 150.0), (-1.627, -1.6), (0.0, 7e6), (0.9999, 1.0001)]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_ticks_are_even_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    gaps = [b - a for a, b in zip(ticks, ticks[1:], strict=False)]
    mantissa = gaps[0] / 10 ** math.floor(math.log10(gaps[0]) + 1e-6)
    assert 3 <= len(ticks) <= 7
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in ticks)
    assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-6)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_labels_read_back_as_their_ticks(low, high):
    ticks = nice_ticks(low, high)
    labels, exponent = tick_labels(ticks)
    assert [float(label.replace("−", "-")) * 10.0**exponent for label in labels] == pytest.approx(
        ticks, abs=1e-9 * high
    )
    assert max(map(len, labels)) <= 7


def test_labels_share_their_decimals_and_lose_a_common_power():
    assert tick_labels([0.0, 0.0002, 0.0004]) == (["0", "2", "4"], -4)
    assert tick_labels([0.0, 0.25, 0.5]) == (["0.00", "0.25", "0.50"], 0)
    assert tick_labels([-1.0, 0.0]) == (["−1", "0"], 0)
    assert tick_labels([0.0]) == (["0"], 0)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 3), (1, 150), (0, 100_000)])
def test_steps_have_whole_ticks(low, high):
    ticks = nice_ticks(low, high, whole=True)
    assert len(ticks) >= 2
    assert all(float(tick).is_integer() for tick in ticks)


@pytest.mark.parametrize("values", [[0.0], [0.5], [-2.0, -2.0], [0.1, 0.9], [1e-12, 2e-12], [-1.0, 1.0]])
def test_a_range_holds_its_values_with_air(values):
    low, high = padded_range(values)
    assert low < min(values) <= max(values) < high or values == [0.0]
    assert low < high


def test_a_range_from_zero_begins_there():
    assert padded_range([0.2, 0.9], zero=True)[0] == 0
    assert padded_range([0.0, 0.0], zero=True)[0] == 0
