"""Folders of images with captions: Hugging Face's `imagefolder`, text files beside the images, GenEval's layout."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from diffalign.data.images import image_suffixes
from diffalign.data.prompts import record_of
from diffalign.data.text import decoded_name, json_objects

logger = logging.getLogger(__name__)

CAPTIONS = "metadata.jsonl"
SAMPLES, SHEET = "samples", "grid.png"
"""GenEval's names: the folder of one prompt's images beside its `metadata.jsonl`, and the sheet of them."""
MANIFEST = "generate.json"
"""The list that `diffalign generate` keeps of its own files."""
TEXTS = ("prompt", "text", "caption")
"""Keys of a caption in `metadata.jsonl`; the first one that is there counts."""


class Picture(NamedTuple):
    """One image of a folder, not yet read.

    Attributes:
        file: its path within the folder, with forward slashes, as text that UTF-8 can hold.
        path: where it is.
        prompt: its caption; None where there is none.
        metadata: what else is known of it.
    """

    file: str
    path: Path
    prompt: str | None
    metadata: dict[str, Any]


def read_folder(folder: str | Path) -> list[Picture]:
    """The images of a folder and of the folders in it, linked ones too, sorted by path.

    The caption of an image comes from, in this order:

    - a `metadata.jsonl` in its folder or one above, with one `{"file_name": ..., "prompt" | "text" | "caption": ...}` a
      line, file names relative to the `metadata.jsonl` (the content of a `metadata` object is lifted to the top);
    - GenEval's layout, which `diffalign generate` writes: `00000/metadata.jsonl` is the prompt of `00000/samples/*`;
    - a `.txt` file beside the image with the same stem.

    What is left out (other files, contact sheets of that layout, dead links) is counted in one warning per reason.

    Raises:
        ValueError: no folder, no image in it, a broken line, or a line about a file that is not there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")
    found = _Found(root)
    if not found.images:
        raise ValueError(f"{root} holds no images ({', '.join(sorted(image_suffixes()))})")
    lines = _captions(found)
    for reason, names in found.left_out.items():
        suffixes = Counter(Path(name).suffix.lower() or "without suffix" for name in names)
        shown = ", ".join(f"{suffix} {count}" for suffix, count in suffixes.most_common(4))
        logger.warning("%s: %d left out, %s (%s; first %s)", root, len(names), reason, shown, names[0])
    return [Picture(name, path, *_caption(path, lines.get(name))) for name, path in sorted(found.images.items())]


class _Found:
    """Contents of a folder.

    Attributes:
        images: name within the folder -> where it is.
        captions: name of a folder within it -> its `metadata.jsonl`.
        left_out: reason -> names.
    """

    def __init__(self, root: Path) -> None:
        self.images: dict[str, Path] = {}
        self.captions: dict[str, Path] = {}
        self.left_out: defaultdict[str, list[str]] = defaultdict(list)
        texts: list[str] = []
        seen: set[str] = set()
        for place, folders, files in os.walk(root, followlinks=True, onerror=self._closed):
            inside = "" if place == str(root) else decoded_name(Path(place).relative_to(root).as_posix())
            real = os.path.realpath(place)
            if real in seen:
                self.left_out["links to a folder that is listed already"].append(inside)
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            folders.sort(key=lambda name: os.path.islink(os.path.join(place, name)))  # a folder before links to it
            for name in sorted(files):
                self._add(Path(place) / name, posixpath.join(inside, decoded_name(name)), texts)
        stems = {posixpath.splitext(name)[0] for name in self.images}
        self._other(*(name for name in texts if posixpath.splitext(name)[0] not in stems))

    def _add(self, path: Path, name: str, texts: list[str]) -> None:
        if path.name.startswith(".") or path.name == MANIFEST:
            return
        if path.name == CAPTIONS:
            self.captions[posixpath.dirname(name)] = path
        elif not path.is_file():
            self.left_out["links that lead nowhere or no plain files"].append(name)
        elif path.suffix.lower() in image_suffixes():
            self.images[name] = path
        elif path.suffix == ".txt":
            texts.append(name)
        else:
            self._other(name)

    def _other(self, *names: str) -> None:
        if names:
            self.left_out["not images that can be read"].extend(names)

    def _closed(self, error: OSError) -> None:
        self.left_out[f"folders that cannot be opened ({error.strerror})"].append(decoded_name(str(error.filename)))


def _captions(found: _Found) -> dict[str, dict[str, Any]]:
    """Image name -> its line; contact sheets of GenEval's layout leave `found.images`."""
    lines: dict[str, dict[str, Any]] = {}
    sheets: set[str] = set()
    for folder, path in found.captions.items():
        records = list(json_objects(path))
        samples = [name for name in found.images if posixpath.dirname(name) == posixpath.join(folder, SAMPLES)]
        if samples and len(records) == 1 and "file_name" not in records[0][1]:
            where, value = records[0]
            record = record_of(value, where)
            lines |= dict.fromkeys(samples, {"prompt": record["prompt"], "metadata": record["metadata"]})
            sheets |= {posixpath.join(folder, SHEET), posixpath.join(posixpath.dirname(folder), SHEET)}
        else:
            lines |= _named_lines(folder, path, records, found.images)
    for name in sorted(sheets & set(found.images) - set(lines)):
        del found.images[name]
        found.left_out["contact sheets"].append(name)
    return lines


def _named_lines(
    folder: str, path: Path, records: list[tuple[str, dict[str, Any]]], images: dict[str, Path]
) -> dict[str, dict[str, Any]]:
    """Image name -> its line in an `imagefolder` file."""
    lines: dict[str, dict[str, Any]] = {}
    for where, record in records:
        if not isinstance(record.get("file_name"), str):
            raise ValueError(f'{where} must have "file_name", got {str(record)[:80]}')
        name = posixpath.normpath(posixpath.join(folder, record["file_name"]))
        if name in lines:
            raise ValueError(f"{where} names {record['file_name']!r} a second time")
        lines[name] = {key: value for key, value in record.items() if key != "file_name"}
    absent = sorted(set(lines) - set(images))
    if absent:
        raise ValueError(f"{path} names {len(absent)} files that are not there, first {absent[0]!r}")
    return lines


def _caption(path: Path, line: dict[str, Any] | None) -> tuple[str | None, dict[str, Any]]:
    if line is not None:
        key = next((key for key in TEXTS if isinstance(line.get(key), str)), None)
        rest = {name: value for name, value in line.items() if name not in (key, "metadata")}
        inner = line.get("metadata")
        return None if key is None else str(line[key]), {**rest, **(inner if isinstance(inner, dict) else {})}
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None, {}
    try:
        return text.read_text(encoding="utf-8-sig").strip() or None, {}
    except UnicodeDecodeError as error:
        raise ValueError(f"{text}: not UTF-8 text ({error.reason})") from error
