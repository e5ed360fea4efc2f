"""Text files of prompts and captions: UTF-8, with or without a byte-order mark, errors with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, stripped, with their numbers from 1 on.

    Lines are decoded one by one, so that an error knows its line.

    Raises:
        ValueError: bytes that are not UTF-8.
    """
    for number, raw in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 text ({error.reason})") from error
        if line:
            yield number, line


def json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON lines file, each with its place for messages (`FILE, line N`).

    Raises:
        ValueError: bytes that are not UTF-8, a line that is not JSON, or not an object.
    """
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(value, dict):
            raise ValueError(f"{where}: must be an object; it is a {type(value).__name__}")
        yield where, value


def decoded_name(text: str) -> str:
    """A file name or command-line word as text that UTF-8 can hold.

    Under an ASCII locale, and for names that are not UTF-8, Python carries the bytes as lone surrogates, which no UTF-8
    file takes. Bytes that are UTF-8 become their characters, others `\\xNN`.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that is no escaped byte
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")
