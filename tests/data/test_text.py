"""Lines and names as text."""

from __future__ import annotations

import json
import os

import pytest

from diffalign.data.text import decoded_name, json_objects, numbered_lines


def test_lines_keep_their_numbers_and_the_byte_order_mark_goes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  two\xe2\x80\xa8three ")
    assert list(numbered_lines(path)) == [(1, "one"), (3, "two\u2028three")]


def test_objects_come_with_their_place(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": 1}\n[]\n', encoding="utf-8")
    found = json_objects(path)
    assert next(found) == (f"{path}, line 1", {"a": 1})
    with pytest.raises(ValueError, match="line 2: must be an object; it is a list"):
        next(found)


@pytest.mark.parametrize(
    ("raw", "text"), [(b"caf\xc3\xa9.png", "café.png"), (b"caf\xe9.png", "caf\\xe9.png"), (b"plain", "plain")]
)
def test_names_from_any_locale_become_text_that_utf8_holds(raw, text):
    assert decoded_name(os.fsdecode(raw)) == text
    assert decoded_name(raw.decode("ascii", "surrogateescape")) == text  # as an ASCII locale gives it


def test_a_half_of_a_pair_can_be_written():
    assert json.dumps(decoded_name("a\ud800"), ensure_ascii=False).encode("utf-8")
