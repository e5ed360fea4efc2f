"""Names of a suite's images, in both forms, and how they are found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffalign.commands._suite_layout import FLAT, FOLDERS, Layout, find, planned
from diffalign.commands._suite_parts import members, spread

LINES = [{"prompt": "a cat / dog"}, {"prompt": "a_b"}, {"prompt": "a cat / dog"}]


def touch(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("layout", [FOLDERS, FLAT])
def test_what_is_planned_is_found(layout: Layout, tmp_path: Path) -> None:
    names = planned(layout, LINES, 2)
    assert len({name for own in names for name in own}) == 6
    touch(tmp_path, [name for own in names for name in own])
    found = find(layout, LINES, tmp_path, 2)
    assert found.files == names and not found.missing and not found.extra
    fewer = find(layout, LINES, tmp_path, 1)
    assert len(fewer.extra) == 3 and [len(own) for own in fewer.files] == [1, 1, 1]


def test_the_names_are_the_benchmarks_own() -> None:
    assert planned(FOLDERS, LINES, 2)[1] == ["00001/samples/0000.png", "00001/samples/0001.png"]
    assert planned(FLAT, LINES, 2)[1] == ["samples/a_000002.png", "samples/a_000003.png"]
    assert planned(FLAT, LINES, 1)[0] == ["samples/a cat   dog_000000.png"]
    assert len(planned(FLAT, [{"prompt": "ü" * 300}], 1)[0][0].encode()) < 255


def test_other_widths_suffixes_and_places_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    touch(tmp_path, ["0/samples/10.jpg", "0/samples/9.jpg", "00002/samples/00000.png", "00000/grid.png", "notes.txt"])
    found = find(FOLDERS, LINES, tmp_path, 2)
    assert found.files == [["0/samples/9.jpg", "0/samples/10.jpg"], [], ["00002/samples/00000.png"]]
    assert found.missing == ["00001/samples/0000.png", "00001/samples/0001.png", "00002/samples/0001.png"]
    flat = tmp_path / "flat"
    touch(flat, ["a_1.webp", "a_000000.png", "other_000003.png", "cover.png"])
    found = find(FLAT, LINES, flat, 2)
    assert found.files == [[], ["a_000000.png", "a_1.webp"], []] and found.extra == ["cover.png", "other_000003.png"]


def test_a_name_is_a_suite_or_all_categories_of_a_benchmark() -> None:
    assert list(members("geneval")) == [""] and list(members("compbench-color")) == [""]
    tasks = {"color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex"}
    assert set(members("t2i_compbench")) == set(members("compbench")) == set(members("compbench_mended")) == tasks
    assert members("compbench_mended")["color"].name == "compbench_color_mended"
    assert list(members("dpg_mended")) == [""] and list(members("geneval2")) == [""]
    with pytest.raises(ValueError, match="did you mean `compbench_color`"):
        members("compbench_colour")


def test_a_subset_is_spread_over_the_file() -> None:
    lines = [{"prompt": str(i)} for i in range(10)]
    assert [line["prompt"] for line in spread(lines, 3)] == ["0", "3", "6"]
    assert spread(lines, 10) == spread(lines, None) == lines
