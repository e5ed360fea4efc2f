"""Charts: points land where their values say, thinning keeps spikes, text is escaped."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET

import pytest

from diffalign.report.curves import MOST_POINTS, Line, line_chart, smooth, thin


def chart(*lines: Line, **options) -> ET.Element:
    return ET.fromstring(line_chart(lines, label="a label", **options))


def path_points(svg: ET.Element, index: int = 0) -> list[tuple[float, float]]:
    data = svg.findall("path")[index].get("d")
    return [tuple(map(float, pair.split(","))) for pair in data[1:].split("L")]


def tick_heights(svg: ET.Element) -> dict[float, float]:
    """Value -> vertical position, read from labels and rules of the vertical axis."""
    labels = [float(t.text.replace("−", "-")) for t in svg.findall("text") if "end" in t.get("class")]
    return dict(zip(labels, [float(rule.get("y1")) for rule in svg.findall("line")], strict=True))


def test_points_agree_with_the_axis():
    heights = tick_heights(svg := chart(Line("a", [(0, 0.2), (10, 0.4), (20, 0.6)], "red")))
    (x0, y0), (x1, y1), (x2, y2) = path_points(svg)
    assert (y0, y1, y2) == pytest.approx((heights[0.2], heights[0.4], heights[0.6]), abs=0.06)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 > y1 > y2


def test_all_points_lie_inside_the_figure():
    points = [(i, 1e-4 * math.sin(i)) for i in range(50)]
    svg = chart(Line("a", points, "red"), size=(330, 170), steps=49)
    assert all(0 <= x <= 330 and 0 <= y <= 170 for x, y in path_points(svg))


def test_the_horizontal_axis_ends_with_the_run():
    short, whole = (chart(Line("a", [(0, 1.0), (10, 2.0)], "red"), steps=steps) for steps in (None, 100))
    assert path_points(whole)[-1][0] < 0.25 * path_points(short)[-1][0]


def test_zero_axis_begins_at_zero():
    heights = tick_heights(chart(Line("a", [(0, 0.5), (1, 0.9)], "red"), zero=True))
    assert min(heights) == 0


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-9, 1e9])
def test_one_point_and_constant_series_draw(value):
    for points in ([(5, value)], [(1, value), (2, value)]):
        assert all(math.isfinite(v) for xy in path_points(chart(Line("a", points, "red"))) for v in xy)


def test_few_measurements_are_marked():
    svg = chart(Line("dots", [(0, 0.1), (5, 0.2)], "red", "dots"), Line("single", [(3, 0.1)], "blue"))
    assert [mark.get("fill") for mark in svg.findall("circle")] == ["red", "red", "blue"]


def test_the_read_out_carries_names_and_values():
    svg = chart(Line('<b>"a"</b>', [(0, 0.123456789), (1, 2.0)], "red"))
    assert json.loads(svg.get("data-lines")) == [['<b>"a"</b>', [[0, 0.12346], [1, 2.0]]]]
    assert svg.get("aria-label") == "a label"


def test_small_values_share_a_power_of_ten():
    svg = chart(Line("a", [(0, 1e-5), (1, 4e-5)], "red"))
    assert "".join(svg.find("text[@y='9']").itertext()) == "×10−5"


def test_thinning_keeps_extremes_ends_and_order():
    points = [(i, math.sin(i / 50)) for i in range(5000)]
    points[1234] = (1234, 50.0)
    points[4321] = (4321, -50.0)
    few = thin(points)
    assert len(few) <= MOST_POINTS + 2
    assert few == sorted(few)
    assert {(1234, 50.0), (4321, -50.0)} <= set(few) <= set(points)


def test_short_series_are_not_thinned():
    points = [(i, 0.0) for i in range(MOST_POINTS)]
    assert thin(points) == points


def test_running_mean_of_a_line_is_the_line_inside():
    points = [(i, 3.0 + 2 * i) for i in range(20)]
    assert smooth(points, 5)[2:-2] == points[2:-2]


def test_running_mean_keeps_constants_and_shrinks_noise():
    assert smooth([(i, 4.0) for i in range(9)], 5) == [(i, 4.0) for i in range(9)]
    noisy = smooth([(i, (-1.0) ** i) for i in range(40)], 5)
    assert max(abs(value) for _, value in noisy[2:-2]) == pytest.approx(0.2)
