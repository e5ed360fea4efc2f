"""Prompt files: text, JSON, JSON lines and tables, with errors that name the line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from diffalign.evaluation.suites._suite import Record


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no prompt file {path} (looked in {Path.cwd()})")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def text_lines(path: Path) -> list[str]:
    """Lines of a file that are not blank, stripped.

    Raises:
        ValueError: there are none.
    """
    lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no prompts; write one a line")
    return lines


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file with one a line."""
    rows = []
    for number, line in enumerate(text_lines(path), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: must be an object, it is a {type(row).__name__}")
        rows.append(row)
    return rows


def table_rows(path: Path, columns: tuple[str, ...], delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a table with a header.

    Raises:
        ValueError: a column is missing, or there is no row.
    """
    reader = csv.DictReader(_text(path).splitlines(keepends=True), delimiter=delimiter)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path} lacks the column {missing[0]!r}; it has {list(reader.fieldnames or ())}")
    rows = [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
    if not rows:
        raise ValueError(f"{path} holds no rows below its header")
    return rows


def prompts(path: Path) -> list[Record]:
    """Prompts of a .txt file (one a line), a .jsonl file (the key `prompt`, the rest is metadata) or a .json list.

    Raises:
        ValueError: another form, or a record without a prompt.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return [Record(line, {}) for line in text_lines(path)]
    if suffix == ".jsonl":
        return [record_of(row, f"{path}, line {number}") for number, row in enumerate(json_lines(path), 1)]
    if suffix == ".json":
        texts = json.loads(_text(path))
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path} must hold a list of prompts")
        return [Record(text, {}) for text in texts]
    raise ValueError(f"prompt file {path} has no known form; valid: .txt, .jsonl, .json")


def record_of(row: dict[str, Any], where: str) -> Record:
    """A record of an object with the key `prompt`; the content of a `metadata` object in it is lifted to the top."""
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}: `prompt` must be a text that is not empty, got {prompt!r}")
    nested = row.get("metadata", {})
    if not isinstance(nested, dict):
        raise ValueError(f"{where}: `metadata` must be an object, got {nested!r}")
    return Record(prompt, {**{key: value for key, value in row.items() if key != "metadata"}, **nested})
