"""Plain text tables within a width."""

from __future__ import annotations

from diffalign.commands._tables import table

HEAD, ROWS = ["name", "text", "last"], [["first", "a long cell of words", "z"], ["b", "-", "more"]]


def test_columns_line_up_and_the_last_is_not_padded():
    lines = table(HEAD, ROWS).splitlines()
    assert lines[2].index("a long") == lines[3].index("-") == lines[0].index("text")
    assert not any(line.endswith(" ") for line in lines)


def test_the_widest_column_is_cut_to_the_width_and_the_first_never():
    lines = table(HEAD, ROWS, 20).splitlines()
    assert max(map(len, lines)) == 20
    assert lines[2].split("  ")[0] == "first" and "a lon.." in lines[2]
    assert table(HEAD, ROWS, 100) == table(HEAD, ROWS)


def test_a_width_that_nothing_fits_is_survived():
    assert "first" in table(HEAD, ROWS, 3)
