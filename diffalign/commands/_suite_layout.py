"""Names of a suite's images: GenEval's folder per prompt, or T2I-CompBench's flat folder with prompts as names."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffalign.data.cells import cell_names
from diffalign.data.folders import CAPTIONS, SAMPLES, SHEET
from diffalign.data.images import image_suffixes

Line = Mapping[str, Any]
LONGEST_NAME = 200
"""Bytes of a prompt that go into a file name; file systems allow 255."""
LISTED = 4
"""Names that a message shows."""


class Found(NamedTuple):
    """Images in a folder.

    Attributes:
        files: for each line its images in order, within the folder.
        missing: planned names without an image.
        extra: images that belong to no line.
    """

    files: list[list[str]]
    missing: list[str]
    extra: list[str]


class Layout(NamedTuple):
    """A way to name the images of lines.

    Attributes:
        name: of image `copy` of line `index`, from `(lines, index, copy, images per prompt)`.
        group: the line that a file belongs to, as `(key, number)`, from its path; None for a file of no line.
        key: of a line, from `(lines, index)`; equal keys share their images in order.
    """

    name: Callable[[Sequence[Line], int, int, int], str]
    group: Callable[[str], tuple[str, int] | None]
    key: Callable[[Sequence[Line], int], str]


def _folder_name(lines: Sequence[Line], index: int, copy: int, images: int) -> str:
    return f"{index:05d}/{SAMPLES}/{copy:04d}.png"


def _folder_group(file: str) -> tuple[str, int] | None:
    found = re.fullmatch(rf"(?:.*/)?(\d+)/{SAMPLES}/(\d+)\.\w+", file)
    return (str(int(found[1])), int(found[2])) if found else None


def _flat_name(lines: Sequence[Line], index: int, copy: int, images: int) -> str:
    return f"{SAMPLES}/{_flat_key(lines, index)}_{index * images + copy:06d}.png"


def _flat_group(file: str) -> tuple[str, int] | None:
    name = Path(file)
    prompt, number = name.stem.partition("_")[0], name.stem.rpartition("_")[2]
    return (prompt, int(number)) if "_" in name.stem and number.isdigit() else None


def _flat_key(lines: Sequence[Line], index: int) -> str:
    """The prompt up to its first "_", as the released scripts read it back, without what a file name cannot hold."""
    text = re.sub(r"[/\0]", " ", lines[index]["prompt"]).partition("_")[0]
    return text.encode()[:LONGEST_NAME].decode(errors="ignore").rstrip()


FOLDERS = Layout(_folder_name, _folder_group, lambda lines, index: str(index))
"""GenEval's: `00000/samples/0000.png`, the prompt in `00000/metadata.jsonl`."""
FLAT = Layout(_flat_name, _flat_group, _flat_key)
"""T2I-CompBench's: `samples/{prompt}_000000.png`, numbered through."""


def planned(layout: Layout, lines: Sequence[Line], images_per_prompt: int) -> list[list[str]]:
    """For each line the names of its images."""
    copies = range(images_per_prompt)
    return [[layout.name(lines, index, copy, images_per_prompt) for copy in copies] for index in range(len(lines))]


def find(layout: Layout, lines: Sequence[Line], folder: Path, images_per_prompt: int) -> Found:
    """The images that somebody put into a folder, whatever their suffix and the width of their numbers.

    Args:
        layout: how they are named.
        lines: the suite's lines.
        folder: where they are.
        images_per_prompt: how many belong to each line; more are extra.

    Raises:
        ValueError: no such folder, or a `metadata.jsonl` beside the images with another prompt than the line's.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    groups, extra = _grouped(layout, folder)
    names = planned(layout, lines, images_per_prompt)
    files: list[list[str]] = []
    missing: list[str] = []
    for index in range(len(lines)):
        own = groups[layout.key(lines, index)]
        mine, own[:] = own[:images_per_prompt], own[images_per_prompt:]
        files.append(mine)
        missing += names[index][len(mine) :]
        for file in mine[:1]:
            _check_prompt(folder / file, lines[index]["prompt"])
    extra += [file for own in groups.values() for file in own]
    return Found(files, missing, sorted(extra))


def find_sheets(field: str, lines: Sequence[Line], folder: Path) -> Found | None:
    """The images in sheets of four, a file for each prompt, called by a field of its line; None without such a file."""
    groups = {path.stem: path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in image_suffixes()}
    names = [str(line[field]) for line in lines]
    if not set(names) & set(groups):
        return None
    files = [cell_names(groups[name]) if name in groups else [] for name in names]
    missing = [f"{name}.png" for name in names if name not in groups]
    return Found(files, missing, sorted(file for stem, file in groups.items() if stem not in set(names)))


def _grouped(layout: Layout, folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Images by key, in the order of their numbers; and those of no line."""
    numbered: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    extra = []
    for path in sorted(folder.rglob("*")):
        file = path.relative_to(folder).as_posix()
        if path.suffix.lower() not in image_suffixes() or path.name.startswith(".") or path.name == SHEET:
            continue
        found = layout.group(file)
        if found is None:
            extra.append(file)
        else:
            numbered[found[0]].append((found[1], file))
    groups = defaultdict(list, {key: [file for _, file in sorted(own)] for key, own in numbered.items()})
    return groups, extra


def _check_prompt(image: Path, prompt: str) -> None:
    """Refuses images of another prompt, where a file beside them says so."""
    captions = image.parent.parent / CAPTIONS
    if not captions.is_file():
        return
    try:
        record = json.loads(captions.read_text(encoding="utf-8-sig").splitlines()[0])
    except (ValueError, IndexError) as error:
        raise ValueError(f"{captions} cannot be read: {error}") from error
    seen = record.get("prompt") if isinstance(record, dict) else None
    if isinstance(seen, str) and seen != prompt:
        raise ValueError(f"{captions} has the prompt {seen!r}, the suite's line {prompt!r}: another prompt file?")


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"
