"""The folder that `diffalign generate` writes: in GenEval's layout, with a list of its own files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffalign.commands._outputs import check_writable
from diffalign.data.folders import MANIFEST, SAMPLES, SHEET


def sample_file(line: int, copy: int) -> str:
    """Name of image `copy` of prompt `line` within the folder."""
    return f"{line:05d}/{SAMPLES}/{copy:04d}.png"


def planned_files(prompts: int, images_per_prompt: int) -> list[str]:
    """Every file that one call writes, beside the list itself."""
    samples = [sample_file(line, copy) for line in range(prompts) for copy in range(images_per_prompt)]
    beside = [f"{line:05d}/{name}" for line in range(prompts) for name in ("metadata.jsonl", SHEET)]
    return [SHEET, *beside, *samples]


class ImageFolder:
    """An output folder that holds the images of one call and nothing else.

    Args:
        folder: where it is; need not exist.
        overwrite: replace what an earlier call wrote there.

    Raises:
        ValueError: it holds images and `overwrite` is off, it holds files that `generate` did not write, or nothing can
            be written there.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.path = folder
        check_writable(folder / MANIFEST)
        self._earlier = _listed(folder)
        present = [
            path.relative_to(folder).as_posix()
            for path in sorted(folder.rglob("*"))
            if path.is_symlink() or not path.is_dir()
        ]
        foreign = [name for name in present if name not in self._earlier and not Path(name).name.startswith(".")]
        if foreign:
            raise ValueError(
                f"{folder} holds {len(foreign)} files that `diffalign generate` did not write, first {foreign[0]}: "
                "give another --output"
            )
        if self._earlier and not overwrite:
            raise ValueError(f"{folder} holds images already: give another --output, or --overwrite to replace them")

    def begin(self, files: Sequence[str], settings: dict[str, Any]) -> None:
        """Remove what the earlier call wrote and list what this one writes; before the first file of it.

        Args:
            files: names within the folder.
            settings: what the images are made with, kept in the list for the reader.
        """
        for name in self._earlier:
            (self.path / name).unlink(missing_ok=True)
        folders = {self.path / parent for name in self._earlier for parent in Path(name).parents} - {self.path}
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        text = json.dumps({"settings": settings, "files": list(files)}, indent=1)
        (self.path / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _listed(folder: Path) -> frozenset[str]:
    """Files of an earlier call, its list among them; empty without one.

    Raises:
        ValueError: the list is damaged, so that nobody knows whose the files are.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return frozenset()
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        inside = [name for name in files if not Path(name).is_absolute() and ".." not in Path(name).parts]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): give another --output") from error
    return frozenset([MANIFEST, *inside])
