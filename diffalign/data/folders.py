"""Folders of images with captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
CAPTIONS = "metadata.jsonl"
TEXTS = ("prompt", "text", "caption")
"""Keys of a caption in `metadata.jsonl`, the first one there counts."""


class Picture(NamedTuple):
    """One image of a folder, not yet read.

    Attributes:
        file: its path within the folder, with forward slashes.
        path: where it lies.
        prompt: its caption; None where there is none.
        metadata: the rest of its line.
    """

    file: str
    path: Path
    prompt: str | None
    metadata: dict[str, Any]


def read_folder(folder: str | Path) -> list[Picture]:
    """The images of a folder and of the folders in it, sorted by path.

    Captions come from `metadata.jsonl` in the folder, one `{"file_name": ..., "prompt" | "text" | "caption": ...}` a
    line (the content of a `metadata` object in it is lifted to the top, as for prompts), else from a `.txt` file beside
    the image with the same stem.

    Raises:
        ValueError: no folder, no image in it, a broken line, or a line about a file that is not there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"{root} holds no images ({', '.join(SUFFIXES)})")
    lines = _lines(root / CAPTIONS) if (root / CAPTIONS).is_file() else {}
    names = {path.relative_to(root).as_posix(): path for path in found}
    absent = sorted(set(lines) - set(names))
    if absent:
        raise ValueError(f"{root / CAPTIONS} names {len(absent)} files that are not there, first {absent[0]!r}")
    return [Picture(name, path, *_caption(path, lines.get(name))) for name, path in names.items()]


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    """File name -> its line."""
    out = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not valid JSON: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
            raise ValueError(f'{path}, line {number} must be an object with "file_name", got {line[:80]!r}')
        out[record.pop("file_name")] = record
    return out


def _caption(path: Path, line: dict[str, Any] | None) -> tuple[str | None, dict[str, Any]]:
    if line is not None:
        key = next((key for key in TEXTS if isinstance(line.get(key), str)), None)
        rest = {name: value for name, value in line.items() if name not in (key, "metadata")}
        inner = line.get("metadata")
        return None if key is None else str(line[key]), {**rest, **(inner if isinstance(inner, dict) else {})}
    text = path.with_suffix(".txt")
    return (text.read_text(encoding="utf-8").strip() if text.is_file() else None), {}
