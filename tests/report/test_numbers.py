"""Numbers as text."""

from __future__ import annotations

import pytest

from diffalign.report.numbers import compact, digits_for, duration, interval_text, score, signed, typographic


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (999.6, "1.00k"),
        (99_960, "100k"),
        (999_960, "1.00M"),
        (23_040, "23.0k"),
        (345_600, "346k"),
        (1_240_000, "1.24M"),
        (3e9, "3.00G"),
    ],
)
def test_counts(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.25, "4.2 s"), (59.99, "1 min 00 s"), (425, "7 min 05 s"), (3599.7, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_durations_never_show_sixty(seconds, text):
    assert duration(seconds) == text


def test_zero_has_no_minus_sign():
    assert score(-0.001) == "0.00"
    assert signed(-0.001) == "+0.00"
    assert interval_text(-0.004, 0.1) == "[0.00, 0.10]"


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_missing_numbers_are_dashes(missing):
    assert score(missing) == signed(missing) == "–"


@pytest.mark.parametrize(
    ("low", "high", "digits"),
    [
        (0.06, 0.14, 2),
        (0.1, 0.11, 2),
        (0.1, 0.109, 3),
        (-0.0002, 0.0002, 4),
        (0, 2e-6, 5),
        (0, 1e-12, 2),
        (0.1, 0.1, 2),
        (-40, 900, 2),
    ],
)
def test_narrow_intervals_get_the_digits_to_be_seen(low, high, digits):
    assert digits_for(low, high) == digits
    assert high - low < 1e-5 or interval_text(low, high, digits)[1:-1].split(", ")[0] != score(high, digits)


def test_typographic_signs():
    assert typographic("0.5 -> 0.4 (-0.1)") == "0.5 → 0.4 (−0.1)"
