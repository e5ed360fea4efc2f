"""Images of a folder and where their captions come from."""

from __future__ import annotations

import json

import pytest

from diffalign.data.folders import read_folder


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def lines(folder, *records):
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(record) for record in records) + "\n\n")


def test_images_come_sorted_with_the_texts_beside_them(folder):
    (folder / "a.txt").write_text("a cat\n")
    (folder / "deep" / "c.txt").write_text("\u00e9t\u00e9", encoding="utf-8")
    found = [(picture.file, picture.prompt, picture.metadata) for picture in read_folder(folder)]
    assert found == [("a.JPG", "a cat", {}), ("b.png", None, {}), ("deep/c.webp", "\u00e9t\u00e9", {})]


def test_a_line_wins_over_a_text_and_its_rest_is_metadata(folder):
    (folder / "b.txt").write_text("not this")
    lines(
        folder,
        {"file_name": "b.png", "text": "two dogs", "tag": "counting", "metadata": {"include": [1]}},
        {"file_name": "deep/c.webp", "prompt": "a hat", "caption": "other"},
        {"file_name": "a.JPG", "tag": "x"},
    )
    found = {picture.file: picture for picture in read_folder(str(folder))}
    assert found["b.png"].prompt == "two dogs" and found["b.png"].metadata == {"tag": "counting", "include": [1]}
    assert found["deep/c.webp"].prompt == "a hat" and found["deep/c.webp"].metadata == {"caption": "other"}
    assert found["a.JPG"].prompt is None and found["a.JPG"].metadata == {"tag": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "b.png"}\n{', "line 2 is not valid JSON"),
        ('{"prompt": "a"}', 'line 1 must be an object with "file_name"'),
        ("[1]", 'line 1 must be an object with "file_name"'),
        ('{"file_name": "gone.png", "prompt": "a"}', "1 files that are not there, first 'gone.png'"),
    ],
)
def test_broken_lines_are_named(folder, text, message):
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no images"):
        read_folder(tmp_path)
