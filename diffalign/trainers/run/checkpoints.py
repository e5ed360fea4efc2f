"""Checkpoints: written whole or not at all, and resumed exactly. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

FORMAT = 1

TENSOR_FILES = ("weights.safetensors", "training.pt")

DAMAGE = (json.JSONDecodeError, UnicodeDecodeError, RuntimeError, EOFError, UnpicklingError, SafetensorError)
"""What the readers of the three files raise on one that was cut off or overwritten."""


def save_checkpoint(
    folder: Path, step: int, *, weights: dict[str, Tensor], tensors: dict[str, Any], state: dict[str, Any]
) -> Path:
    """Write `folder/checkpoint-<step>` in a temporary folder beside it, then rename.

    Args:
        folder: the run folder.
        step: optimiser step.
        weights: trainable parameters by name.
        tensors: optimiser, EMA and RNG states: nested dicts and lists of tensors and numbers.
        state: what JSON can hold (step, rollout number, reward histories, configuration).

    Raises:
        OSError: the disk is full; checkpoints written earlier stay as they are, the temporary folder is removed.
    """
    target, temporary = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.tmp"
    replaced = folder / f".checkpoint-{step}.old.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file(weights, temporary / "weights.safetensors")
        torch.save(tensors, temporary / "training.pt")
        digests = {name: _digest(temporary / name) for name in TENSOR_FILES}
        text = json.dumps({"format": FORMAT, "step": step, "sha256": digests, **state}, indent=1)
        (temporary / "state.json").write_text(text, encoding="utf-8")
        for path in temporary.iterdir():
            _sync(path)
        if target.exists():
            os.replace(target, replaced)
        os.replace(temporary, target)
        _sync(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own full disk
        if replaced.exists() and not target.exists():
            os.replace(replaced, target)
        kept = latest_checkpoint(folder)
        raise OSError(
            f"checkpoint-{step} could not be written ({error}); the last good one is {kept or 'none'}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return target


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """(weights, tensors, state) of a checkpoint folder.

    Raises:
        ValueError: a folder that is not a whole checkpoint (the newest whole one before it is named), or of another
            format.
    """
    try:
        return _read(path)
    except ValueError as error:
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        earlier = newest_whole(path.parent, below=int(match[1])) if match else None
        if earlier is None:
            raise
        raise ValueError(f"{error}; the newest whole one before it: resume_from_checkpoint = {earlier.name}") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    missing = [name for name in (*TENSOR_FILES, "state.json") if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path} is not a checkpoint: {', '.join(missing)} missing")
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state.get("format") != FORMAT:
            raise ValueError(f"{path} has checkpoint format {state.get('format')}, this version reads {FORMAT}")
        for name, digest in state.get("sha256", {}).items():
            if _digest(path / name) != digest:
                raise ValueError(f"{path} is damaged ({name} is not what was written)")
        tensors = torch.load(path / "training.pt", map_location="cpu", weights_only=True)
        return load_file(path / "weights.safetensors"), tensors, state
    except DAMAGE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]  # EOFError comes without a text
        raise ValueError(f"{path} is damaged ({first}): resume from another checkpoint, or start anew") from error


def find_checkpoint(folder: Path, name: str) -> Path | None:
    """The folder that `resume_from_checkpoint` means.

    Args:
        folder: the run folder.
        name: a path, a name inside the run folder, "latest", or "auto": the newest whole one, and None (start from
            the beginning) when the run has none yet.

    Raises:
        ValueError: nothing of this name (the checkpoints that exist are listed), or "auto" finds only damaged ones.
    """
    if name == "auto":
        found = newest_whole(folder)
        if found is None and _all(folder):
            raise ValueError(f"no checkpoint in {folder} is whole: remove them to start anew")
        return found
    if name == "latest":
        found = latest_checkpoint(folder)
        if found is None:
            raise ValueError(
                f"resume_from_checkpoint = latest, but {folder} holds no checkpoint (auto would start anew)"
            )
        return found
    for candidate in (Path(name), folder / name):
        if candidate.is_dir():
            return candidate
    have = ", ".join(path.name for path in _all(folder)) or "none"
    raise ValueError(f"there is no checkpoint {name!r}; in {folder}: {have}")


def newest_whole(folder: Path, below: float = float("inf")) -> Path | None:
    """The newest checkpoint of a step under `below` that can be read, or None; those passed over are logged."""
    for path in reversed(_all(folder)):
        if int(path.name.split("-")[1]) < below:
            try:
                _read(path)
            except ValueError as error:
                logger.warning("passed over: %s", error)
                continue
            return path
    return None


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    found = _all(folder)
    return found[-1] if found else None


def prune_checkpoints(folder: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` checkpoints (None keeps all), and what killed saves left."""
    for path in _all(folder)[: None if keep is None else -keep] if keep else []:
        os.replace(path, folder / f".{path.name}.old.tmp")  # a kill in the middle of a removal leaves no half of it
    sweep(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary folders of saves and removals that were killed."""
    for path in folder.glob(".checkpoint-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    named = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.glob("checkpoint-*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force to disk, so that the rename never points at data that a crash would lose."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
