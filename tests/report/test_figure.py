"""Parts that all panels share."""

from __future__ import annotations

from diffalign.report.curves import Line
from diffalign.report.figure import named, panel, ramp


def test_ramp_has_one_colour_per_step_from_blue_to_orange():
    for count in (1, 2, 3, 8, 50):
        colours = ramp(count)
        assert len(set(colours)) == count
    red, blue = ([int(colour[i : i + 2], 16) for colour in ramp(8)] for i in (1, 5))
    assert red == sorted(red)
    assert blue[0] > red[0] and blue[-1] < red[-1]


def test_ramp_reads_on_white_and_on_black():
    """WCAG contrast of 3:1 against both grounds, as for any graphic."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in ramp(9):
        assert 1.05 / (luminance(colour) + 0.05) >= 3
        assert (luminance(colour) + 0.05) / 0.05 >= 3


def test_legend_appears_with_the_second_line():
    one, two = Line("first", [(0, 1.0)], "red"), Line("second", [(0, 2.0)], "blue")
    assert "legend" not in panel("t", [one], "hint", 1)
    assert "first" in panel("t", [one, two], "hint", 1).split("<svg")[0]


def test_names_without_points_get_no_line_but_keep_the_colours_of_others():
    lines = named({"a": [(0, 1.0)], "b": [], "c": [(0, 2.0)]})
    assert [line.name for line in lines] == ["a", "c"]
    assert lines[1].colour == named({"x": [], "y": [], "c": [(0, 2.0)]})[0].colour
