"""Prompts with their metadata, from the embedded world, a text file, or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

SPLITS = ("train", "heldout")
FORMS = "shapes:train, shapes:heldout, a .txt file (one prompt a line) or a .jsonl file (prompt and metadata a line)"


class Record(TypedDict):
    """One prompt: its text, and what rewards may need beside it (for GenEval: its own line)."""

    prompt: str
    metadata: dict[str, Any]


def read_prompts(spec: str | Path) -> list[Record]:
    """The prompts that a specification stands for, in file order.

    Args:
        spec: `shapes:train` or `shapes:heldout`; a `.txt` file with one prompt a line; or a `.jsonl` file with one
            object a line. Of such an object `prompt` is required. The metadata is the line itself, so that GenEval's
            own file works as it is; the content of a `metadata` object in it is lifted to the top. Blank lines are
            skipped.

    Raises:
        ValueError: an unknown form, a file without prompts, or a broken line, named with file and line number.
        FileNotFoundError: no such file.
    """
    text = str(spec)
    if text.startswith("shapes:"):
        return _shapes(text.removeprefix("shapes:"))
    path = Path(text)
    reader = {".txt": _from_text, ".jsonl": _from_json}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"prompts {text!r} have no known form; valid: {FORMS}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no prompt file {path} (looked in {Path.cwd()}); valid: {FORMS}")
    records = [reader(line, f"{path}, line {number}") for number, line in _lines(path)]
    if not records:
        raise ValueError(f"{path} holds no prompts; write one a line")
    return records


def _shapes(split: str) -> list[Record]:
    if split not in SPLITS:
        valid = ", ".join(f"shapes:{one}" for one in SPLITS)
        raise ValueError(f"the embedded world has no split {split!r}; valid: {valid}")
    from diffalign import shapes

    return [{"prompt": str(line["prompt"]), "metadata": dict(line)} for line in shapes.prompts(split)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank; decoded one by one, so that an error knows its line."""
    for number, raw in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 text ({error.reason})") from error
        if line:
            yield number, line


def _from_text(line: str, where: str) -> Record:
    return {"prompt": line, "metadata": {}}


def _from_json(line: str, where: str) -> Record:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be an object with the key `prompt`; it is a {type(value).__name__}")
    prompt, nested = value.get("prompt"), value.get("metadata", {})
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}: `prompt` must be a text that is not empty; got {prompt!r}")
    if not isinstance(nested, dict):
        raise ValueError(f"{where}: `metadata` must be an object; got {nested!r}")
    return {"prompt": prompt, "metadata": {key: item for key, item in value.items() if key != "metadata"} | nested}
