"""Prompt readers: every form, and errors that name file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffalign.data import read_prompts

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"


def needs(name: str) -> Path:
    path = PUBLIC / name
    if not path.is_file():
        pytest.skip(f"the public prompt file {name} is not beside this checkout")
    return path


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_embedded_world_is_read_by_name(split: str) -> None:
    records = read_prompts(f"shapes:{split}")
    assert len(records) >= 40
    for record in records:
        assert record["metadata"]["prompt"] == record["prompt"]
        assert record["metadata"]["include"] and record["metadata"]["tag"]


def test_only_single_objects_are_in_both_splits() -> None:
    train, heldout = (read_prompts(f"shapes:{split}") for split in ("train", "heldout"))
    seen = {record["prompt"] for record in train}
    assert {r["metadata"]["tag"] for r in heldout if r["prompt"] in seen} <= {"single_object"}


def test_a_caller_may_change_what_it_got() -> None:
    read_prompts("shapes:train")[0]["metadata"]["include"].clear()
    assert read_prompts("shapes:train")[0]["metadata"]["include"]


def test_a_text_file_is_one_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbfa cat\r\n\n  a dog \n\t\nna\xc3\xafve, {not json}")
    assert read_prompts(path) == [{"prompt": p, "metadata": {}} for p in ("a cat", "a dog", "naïve, {not json}")]


def test_json_lines_keep_every_other_key(tmp_path: Path) -> None:
    lines = [{"prompt": "a cat", "tag": "x", "include": [{"class": "cat", "count": 1}]}, {"prompt": "a dog"}]
    path = tmp_path / "p.jsonl"
    path.write_text("\n\n".join(json.dumps(line) for line in lines))
    records = read_prompts(str(path))
    assert [r["prompt"] for r in records] == ["a cat", "a dog"]
    assert [r["metadata"] for r in records] == lines


def test_a_metadata_object_is_lifted(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "a cat", "tag": "outer", "id": 7, "metadata": {"tag": "inner"}}))
    assert read_prompts(path)[0]["metadata"] == {"prompt": "a cat", "tag": "inner", "id": 7}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a cat"', "not JSON"),
        ('["a cat"]', "it is a list"),
        ('{"text": "a cat"}', "`prompt` must be a text"),
        ('{"prompt": "  "}', "`prompt` must be a text"),
        ('{"prompt": 3}', "`prompt` must be a text"),
        ('{"prompt": "a cat", "metadata": "x"}', "`metadata` must be an object"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n\n{line}\n{{"prompt": "fine"}}\n')
    with pytest.raises(ValueError, match=reason) as error:
        read_prompts(path)
    assert "broken.jsonl, line 3:" in str(error.value)


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_bytes_that_are_no_text_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"prompt": "fine"}\n\xff\xfe\n')
    with pytest.raises(ValueError, match=f"{name}, line 2: not UTF-8"):
        read_prompts(path)


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("\n  \n")
    with pytest.raises(ValueError, match="holds no prompts"):
        read_prompts(path)


@pytest.mark.parametrize("spec", ["prompts.csv", "shapes", "a red circle", ""])
def test_an_unknown_form_lists_the_valid_ones(spec: str) -> None:
    with pytest.raises(ValueError, match="shapes:train, shapes:heldout, a .txt file"):
        read_prompts(spec)


def test_an_unknown_split_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="no split 'test'; valid: shapes:train, shapes:heldout"):
        read_prompts("shapes:test")


def test_an_absent_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no prompt file .*nowhere.txt .looked in"):
        read_prompts(tmp_path / "nowhere.txt")


def test_the_public_geneval_file_reads_as_it_is() -> None:
    path = needs("geneval/evaluation_metadata.jsonl")
    records = read_prompts(path)
    assert len(records) == 553
    assert records[0]["metadata"] == json.loads(path.read_text().splitlines()[0])
    assert {r["metadata"]["tag"] for r in records} >= {"counting", "position", "color_attr"}


@pytest.mark.parametrize(("name", "count"), [("color_val", 300), ("spatial_val", 300)])
def test_the_public_text_files_read_as_they_are(name: str, count: int) -> None:
    records = read_prompts(needs(f"t2i_compbench/{name}.txt"))
    assert len(records) == count and all(r["prompt"] and not r["metadata"] for r in records)
