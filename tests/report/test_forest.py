"""Intervals on one axis."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from diffalign.report.forest import axis, forest_range, interval_bar, verdict


def entry(low, gain, high):
    return {"low": low, "gain": gain, "high": high}


@pytest.mark.parametrize(
    ("low", "high", "kind"), [(0.01, 0.2, "good"), (-0.2, -0.01, "bad"), (-0.1, 0.1, "open"), (0.0, 0.1, "open")]
)
def test_verdict_is_the_side_of_zero(low, high, kind):
    assert verdict(entry(low, (low + high) / 2, high)) == kind


def test_common_range_holds_all_intervals_and_zero():
    assert forest_range([entry(0.1, 0.2, 0.3), entry(0.05, 0.1, 0.2)]) == (0.0, 0.3)
    assert forest_range([entry(-0.3, -0.2, -0.1)]) == (-0.3, 0.0)
    low, high = forest_range([entry(0.0, 0.0, 0.0)])
    assert low < 0 < high


def test_bar_dot_and_zero_are_in_order_and_inside():
    svg = ET.fromstring(interval_bar(entry(0.1, 0.15, 0.3), (-0.1, 0.3)))
    zero, span = svg.findall("line")
    positions = [float(p) for p in (zero.get("x1"), span.get("x1"), svg.find("circle").get("cx"), span.get("x2"))]
    assert positions == sorted(positions)
    assert positions[0] > 0 and positions[-1] < float(svg.get("width"))
    assert (positions[2] - positions[1]) / (positions[3] - positions[1]) == pytest.approx(0.25, abs=0.01)


def test_axis_names_the_sides_of_zero():
    labels = [text.text for text in ET.fromstring(axis((-0.12, 0.25))).findall("text")]
    assert labels == ["−0.1", "0", "+0.1", "+0.2"]


def test_tiny_gains_keep_their_size_on_the_axis():
    labels = [text.text for text in ET.fromstring(axis((0.0, 0.0009))).findall("text")]
    assert [float(label) for label in labels] == pytest.approx([0, 0.0002, 0.0004, 0.0006, 0.0008])
