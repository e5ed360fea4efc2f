"""Images of a folder, where their captions come from, and what is left out."""

from __future__ import annotations

import json
import os

import pytest

from diffalign.data.folders import read_folder


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp"):
        touch(tmp_path / name)
    return tmp_path


def touch(*paths):
    for path in paths:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")


def lines(folder, *records):
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(record) for record in records) + "\n\n")


def read(folder):
    return {picture.file: (picture.prompt, picture.metadata) for picture in read_folder(folder)}


def test_images_come_sorted_with_the_texts_beside_them(folder):
    (folder / "a.txt").write_text("a cat\n")
    (folder / "deep" / "c.txt").write_text("\ufeff\u00e9t\u00e9", encoding="utf-8")
    (folder / "b.txt").write_text(" \n")
    assert list(read(folder).items()) == [
        ("a.JPG", ("a cat", {})), ("b.png", (None, {})), ("deep/c.webp", ("\u00e9t\u00e9", {}))
    ]  # fmt: skip


def test_a_line_wins_over_a_text_and_its_rest_is_metadata(folder):
    (folder / "b.txt").write_text("not this")
    lines(
        folder,
        {"file_name": "b.png", "text": "two dogs", "tag": "counting", "metadata": {"include": [1]}},
        {"file_name": "./deep/c.webp", "prompt": "a hat", "caption": "other"},
        {"file_name": "a.JPG", "tag": "x"},
    )
    assert read(str(folder)) == {
        "b.png": ("two dogs", {"tag": "counting", "include": [1]}),
        "deep/c.webp": ("a hat", {"caption": "other"}),
        "a.JPG": (None, {"tag": "x"}),
    }


def test_a_caption_file_counts_from_its_own_folder(folder):
    lines(folder / "deep", {"file_name": "c.webp", "prompt": "a hat"})
    assert read(folder)["deep/c.webp"] == ("a hat", {})


def test_genevals_layout_gives_every_sample_its_prompt(tmp_path, caplog):
    line = {"prompt": "two dogs", "tag": "counting", "include": [{"class": "dog", "count": 2}]}
    touch(tmp_path / "grid.png")
    for number, prompt in enumerate(["two dogs", "a cat"]):
        own = tmp_path / f"{number:05d}"
        touch(own / "grid.png", own / "samples/0000.png", own / "samples/0001.png")
        lines(own, line | {"prompt": prompt})
    found = read(tmp_path)
    assert list(found) == [f"{i:05d}/samples/{j:04d}.png" for i in range(2) for j in range(2)]
    assert [prompt for prompt, _ in found.values()] == ["two dogs"] * 2 + ["a cat"] * 2
    assert all(metadata["include"] == line["include"] for _, metadata in found.values())
    assert "3 left out, contact sheets (.png 3; first 00000/grid.png)" in caplog.text
    assert list(read(tmp_path / "00001")) == ["samples/0000.png", "samples/0001.png"]


def test_linked_folders_are_followed_once(folder, tmp_path_factory, caplog):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    touch(elsewhere / "d.png")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "deep" / "up").symlink_to(folder)
    assert [name for name in read(folder) if name.endswith("d.png")] == ["again/d.png"]
    assert "2 left out, links to a folder that is listed already" in caplog.text


def test_what_is_left_out_is_counted_and_nothing_else_is_said(folder, caplog):
    assert len(read(folder)) == 3 and not caplog.records
    touch(folder / "x.heic", folder / "deep/y.heic", folder / "z.svg", folder / "alone.txt", folder / ".hidden.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    assert len(read(folder)) == 3
    assert "4 left out, not images that can be read (.heic 2, .svg 1, .txt 1; first x.heic)" in caplog.text
    assert "1 left out, links that lead nowhere or no plain files (.png 1; first gone.png)" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX alone")
def test_a_name_that_is_not_utf8_becomes_text(folder):
    (folder / os.fsdecode(b"\xe9.png")).write_bytes(b"")
    assert "\\xe9.png" in read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "b.png"}\n{', "line 2: not JSON"),
        ('{"prompt": "a"}', 'line 1 must have "file_name"'),
        ("[1]", "line 1: must be an object"),
        ('{"file_name": "gone.png", "prompt": "a"}', "1 files that are not there, first 'gone.png'"),
        ('{"file_name": "b.png"}\n{"file_name": "./b.png"}', "line 2 names './b.png' a second time"),
    ],
)
def test_broken_lines_are_named(folder, text, message):
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_captions_that_are_no_text_are_named(folder):
    (folder / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="b.txt: not UTF-8 text"):
        read_folder(folder)


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no images"):
        read_folder(tmp_path)
