"""The folder of a run: an old run in it is set aside, and removed only once the new one has passed its checks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from accelerate import Accelerator

FILES = ("metrics.jsonl", "config.yaml", "report.html", "README.md", "pytorch_lora_weights.safetensors")
PATTERNS = (
    "checkpoint-*",
    ".checkpoint-*",
    "evaluation/*.json",
    "images/before.png",
    "images/after.png",
    "images/samples.json",
    "images/step-*.png",
)
"""What a run writes beside FILES; anything else in its folders is the user's."""

ASIDE = ".replaced"


class RunFolder:
    """Claims `output_dir` for one run.

    Args:
        path: the folder.
        accelerator: the processes; the main one moves files.

    Attributes:
        committed: the run has passed its checks.
    """

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self.claimed = self.committed = False

    def recover(self) -> None:
        """Put back a run that a start which was killed before its checks had set aside."""
        if self.accelerator.is_main_process:
            self._put_back()
        self.accelerator.wait_for_everyone()

    def check(self, *, resume: Path | None, overwrite: bool) -> None:
        """Refuse a folder that this run may not write into; changes nothing.

        Raises:
            ValueError: another run is in it and overwriting was not requested, or files that no run wrote.
        """
        if holds_run(self.path):
            if not self._continues(resume) and not overwrite:
                raise ValueError(
                    f"{self.path} already holds a run: resume it (resume_from_checkpoint: latest), choose another "
                    "output_dir, or give --overwrite_output_dir"
                )
            return
        names = [name for name in (*FILES, "model_index.json") if (self.path / name).exists()]
        foreign = [name for name in names if name != "config.yaml" or not _is_config(self.path / name)]
        if foreign:
            raise ValueError(
                f"{self.path} holds {', '.join(foreign)}, which no run of diffalign wrote and this one would replace: "
                "choose another output_dir"
            )

    def claim(self, *, resume: Path | None) -> None:
        """Make the folder and set an old run aside, unless it is the one that goes on."""
        if self.accelerator.is_main_process:
            if holds_run(self.path) and not self._continues(resume):
                self._set_aside()
            self.path.mkdir(parents=True, exist_ok=True)
        self.claimed = not self._continues(resume)
        self.accelerator.wait_for_everyone()

    def commit(self) -> None:
        """Remove the run that was set aside: the new one has passed its checks."""
        self.committed = True
        if self.accelerator.is_main_process:
            shutil.rmtree(self.path / ASIDE, ignore_errors=True)

    def restore(self) -> None:
        """Put the old run back, without what the new one wrote: it did not start. Nothing to do after `commit`."""
        if self.accelerator.is_main_process and self.claimed and not self.committed:
            for path in list(written_by_run(self.path)):
                _remove(path)
            self._put_back()

    def _continues(self, resume: Path | None) -> bool:
        return resume is not None and resume.resolve().parent == self.path.resolve()

    def _set_aside(self) -> None:
        for path in list(written_by_run(self.path)):
            target = self.path / ASIDE / path.relative_to(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)

    def _put_back(self) -> None:
        aside = self.path / ASIDE
        if not aside.is_dir():
            return
        for path in list(written_by_run(aside)):
            target = self.path / path.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(target)
            os.replace(path, target)
        shutil.rmtree(aside)


def holds_run(folder: Path) -> bool:
    """True when a run wrote into the folder: its log or one of its checkpoints is there."""
    return _is_log(folder / "metrics.jsonl") or any(folder.glob("checkpoint-*/state.json"))


def written_by_run(folder: Path) -> Iterator[Path]:
    """Files and folders that a run wrote, a saved pipeline included."""
    yield from (folder / name for name in FILES if (folder / name).exists())
    for pattern in PATTERNS:
        yield from folder.glob(pattern)
    index = folder / "model_index.json"
    if index.is_file():
        names = [name for name in json.loads(index.read_text(encoding="utf-8")) if not name.startswith("_")]
        yield from (folder / name for name in names if (folder / name).is_dir())
        yield index


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_config(path: Path) -> bool:
    """True for a config.yaml of ours, as a start that failed may have left."""
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith("config_version:")


def _is_log(path: Path) -> bool:
    """True for a metrics.jsonl of ours: every line names its event and step."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    try:
        line = json.loads(first) if first.strip() else {"event": "", "step": 0}
    except json.JSONDecodeError:
        return '"event"' in first  # the only line was being written when the run was killed
    return isinstance(line, dict) and {"event", "step"} <= set(line)
