"""Weight files on disk: modes by the umask, equal tensors as equal bytes, and which file is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HEADER_LIMIT = 100 * 2**20
"""Longest header that safetensors itself reads."""


def finish_files(folder: Path) -> None:
    """Give every safetensors file under a folder the mode of an ordinary new file, and its metadata a fixed order.

    The safetensors library writes mode 0600 and its metadata in the order of a hash table, so that equal tensors would
    give files of different hashes.
    """
    mode = 0o666 & ~_umask()
    for path in sorted(folder.rglob("*.safetensors")):
        _sort_metadata(path)
        path.chmod(mode)


def damaged_file(folder: Path) -> str | None:
    """The first JSON or safetensors file under a folder that cannot be read, with the reason; None when all can."""
    for path in sorted(folder.rglob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{path.relative_to(folder)} ({error})"
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            header, start = _header(path)
        except (OSError, ValueError) as error:
            return f"{path.relative_to(folder)} ({error})"
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        missing = start + max(ends, default=0) - path.stat().st_size
        if missing > 0:
            return f"{path.relative_to(folder)} (cut off: {missing} bytes are missing)"
    return None


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors start."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < HEADER_LIMIT:
            raise ValueError("not a safetensors file")
        content = file.read(length)
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ValueError("its header is damaged") from error
    return found, 8 + length


def _sort_metadata(path: Path) -> None:
    header, start = _header(path)
    metadata = header.get("__metadata__")
    if not metadata or list(metadata) == sorted(metadata):
        return
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > start - 8:
        return  # escaped by another rule: leave the file as it is
    with path.open("r+b") as file:
        file.seek(8)
        file.write(text.ljust(start - 8))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
