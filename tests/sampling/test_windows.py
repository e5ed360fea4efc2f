"""Window positions over training iterations: MixGRPO's schedulers, and the faults of the released one."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from diffalign.sampling import (
    constant_window,
    exponential_window,
    linear_window,
    progressive_start,
    window,
    window_position,
)


def walk(dwell, positions, total, every, iterations):
    return [window_position(i, positions, total, every, dwell) for i in range(iterations)]


def test_progressive_window_of_the_published_run():
    assert [progressive_start(i, 25, 4) for i in (0, 24, 25, 299)] == [0, 0, 1, 11]


def test_no_window_is_empty_or_holds_the_last_step():
    """The released scheduler reaches l = T - 2 = 23, where [l, min(l + w, T - 2)) is empty."""
    for i in range(25 * 40):
        mask = window(25, progressive_start(i, 25, 4), 4)
        assert int(mask.sum()) == 4 and not bool(mask[24])
    released = [list(range(position, min(position + 4, 23))) for position in range(24)]
    assert [] in released


def test_positions_come_round_and_each_is_visited_equally_often():
    seen = [progressive_start(i, 10, 2, every=3, stride=2) for i in range(3 * 4 * 5)]
    assert [key for key, _ in groupby(seen)][:5] == [0, 2, 4, 6, 0]
    assert set(Counter(seen).values()) == {15}


def test_linear_dwell_falls_to_a_quarter():
    assert [linear_window(k, 25, 24) for k in (0, 8, 24)] == [24, 18, 6]
    assert linear_window(0, 25, 2) == 2 and linear_window(24, 25, 2) == 1


def test_exponential_dwell_starts_falling_in_the_middle():
    assert [exponential_window(k, 25, 25) for k in (0, 13, 14, 20, 24)] == [25, 25, 23, 13, 9]
    assert exponential_window(24, 25, 1) == 1


@pytest.mark.parametrize("dwell", [constant_window, linear_window, exponential_window])
def test_a_window_stays_as_long_as_its_dwell_says_and_then_moves_on(dwell):
    positions, total, every = range(8), 10, 6
    stays = [dwell(p, total, every) for p in positions]
    found = walk(dwell, positions, total, every, 2 * sum(stays))
    assert [(k, len(list(run))) for k, run in groupby(found)] == list(zip(positions, stays, strict=True)) * 2


def test_a_frozen_window_is_one_position():
    assert set(walk(constant_window, [3], 10, 2, 50)) == {3}


@pytest.mark.parametrize(("positions", "every"), [([], 5), ([0], 0)])
def test_a_window_that_can_stay_nowhere_is_refused(positions, every):
    with pytest.raises(ValueError, match="a window needs positions"):
        window_position(0, positions, 10, every)


def test_a_window_larger_than_the_schedule_is_refused():
    with pytest.raises(ValueError, match="does not fit in the first 3 of 4"):
        progressive_start(0, 4, 4)
    with pytest.raises(ValueError, match="does not lie in a schedule of 4"):
        window(4, 1, 4)
