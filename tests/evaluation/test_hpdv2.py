"""Compared outside the tree with evaluate_benchmark (HPSv2, 866735e)."""

from __future__ import annotations

import math

import pytest

from diffalign.evaluation import hpdv2


def test_a_style_is_the_mean_and_population_deviation_of_groups_of_eighty():
    scores = [((i * 37) % 101) / 100 for i in range(200)]  # two whole groups and one of forty
    style = hpdv2.style_score(scores)
    assert style.mean == pytest.approx(0.5024583333333333, abs=1e-12)  # released
    assert style.deviation == pytest.approx(0.007462638422315686, abs=1e-12)  # released
    assert hpdv2.table({"anime": scores, "photo": scores})["average"] == pytest.approx(0.50045, abs=1e-12)


def test_groups_hide_the_spread_inside_them():
    assert hpdv2.style_score([0.0, 1.0] * 400) == (0.5, 0)
    assert hpdv2.style_score([0.0] * 80 + [1.0] * 80) == (0.5, 0.5)


@pytest.mark.parametrize("scores", [[], [0.2, math.nan]])
def test_gaps_are_refused(scores):
    with pytest.raises(ValueError, match="finite score"):
        hpdv2.style_score(scores)
