"""Identity of a reward in a cache: its name, the distribution and version (or files) it comes from, its arguments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from diffalign.rewards.base import Reward
from diffalign.rewards.files import find_file, local_modules
from diffalign.rewards.registry import entries


def identity(spec: Any, arguments: Mapping[str, Any], reward: Reward) -> str | None:
    """A text that changes whenever the scores may, as far as can be seen from outside.

    A registered name counts with its distribution's version, `file.py:function` with the content of the file and of the
    modules that it imports from its own folder, arguments that name files or folders with size and time of change. A
    reward may add a `version` of its own. A reward given as an object has no identity: None.

    Args:
        spec: what `diffalign.rewards.get` was given.
        arguments: the keyword arguments.
        reward: what it made.
    """
    if not isinstance(spec, str):
        return None
    source = _file(spec) if ".py:" in spec else _entry(spec.partition(":")[0])
    files = {text: list(_stamps(Path(text).expanduser())) for text in _strings(arguments)}
    parts = [reward.name, source, arguments, {text: stamps for text, stamps in files.items() if stamps}]
    return json.dumps([*parts, str(getattr(reward, "version", ""))], sort_keys=True, default=repr)


def _file(spec: str) -> list[Any]:
    """The function's name, and hashes of its file and of the modules that it imports from its folder."""
    path, function = find_file(spec)
    helpers = {name: _hash(file) for name, file in local_modules(path).items()}
    return [function, _hash(path), helpers]


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _entry(name: str) -> list[str]:
    for entry in entries():
        if entry.name == name:
            return [entry.value, entry.distribution, _version(entry.distribution)]
    return [name]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # a bare checkout
        from diffalign import __version__

        return __version__ if distribution == "diffalign" else ""


def _strings(value: Any) -> Iterator[str]:
    """Every text in the arguments."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of the files in a folder; nothing where the text is no path."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
        for file in files:
            status = file.stat()
            yield file.name, status.st_size, status.st_mtime_ns
    except (OSError, ValueError):  # a text too long for a path, or with a zero in it, is none
        return
