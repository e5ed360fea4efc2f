"""Prompts with their metadata, from the embedded world, a text file, or JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from diffalign.data.text import json_objects, numbered_lines

SPLITS = ("train", "heldout")
FORMS = "shapes:train, shapes:heldout, a .txt file (one prompt a line) or a .jsonl file (prompt and metadata a line)"


class Record(TypedDict):
    """One prompt: its text, and what rewards may need beside it (for GenEval: its own line)."""

    prompt: str
    metadata: dict[str, Any]


def read_prompts(spec: str | Path) -> list[Record]:
    """Read prompts, in file order.

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
    reader = {".txt": _from_text, ".jsonl": _from_json_lines}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"prompts {text!r} have no known form; valid: {FORMS}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no prompt file {path} (looked in {Path.cwd()}); valid: {FORMS}")
    records = reader(path)
    if not records:
        raise ValueError(f"{path} holds no prompts; write one a line")
    return records


def _shapes(split: str) -> list[Record]:
    if split not in SPLITS:
        valid = ", ".join(f"shapes:{one}" for one in SPLITS)
        raise ValueError(f"the embedded world has no split {split!r}; valid: {valid}")
    from diffalign import shapes

    return [{"prompt": str(line["prompt"]), "metadata": dict(line)} for line in shapes.prompts(split)]


def _from_text(path: Path) -> list[Record]:
    return [{"prompt": line, "metadata": {}} for _, line in numbered_lines(path)]


def _from_json_lines(path: Path) -> list[Record]:
    return [record_of(value, where) for where, value in json_objects(path)]


def record_of(value: dict[str, Any], where: str) -> Record:
    """The record of one JSON object, as `read_prompts` describes it.

    Args:
        value: the object.
        where: its place, for the message.

    Raises:
        ValueError: no prompt, an empty one, or metadata that is not an object.
    """
    prompt, nested = value.get("prompt"), value.get("metadata", {})
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}: `prompt` must be a text that is not empty; got {prompt!r}")
    if not isinstance(nested, dict):
        raise ValueError(f"{where}: `metadata` must be an object; got {nested!r}")
    return {"prompt": prompt, "metadata": {key: item for key, item in value.items() if key != "metadata"} | nested}
