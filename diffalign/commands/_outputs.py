"""Files that a command writes at its end: known to be writable before the work, never lost after it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def check_writable(path: Path, option: str = "--output") -> None:
    """Makes the folder of an output and tries it, before any work is done.

    Raises:
        ValueError: nothing can be written there.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: give the name of a file")
    blocking = next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), None)
    if blocking is not None:
        raise ValueError(f"{option} {path} cannot be written: {blocking} is a file, not a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written ({error.strerror}): choose another place") from error


def write_or_rescue(path: Path, write: Callable[[Path], object]) -> Path:
    """Writes a file whole or not at all; where that fails, into the working directory or the temporary folder.

    Args:
        path: where it should go.
        write: writes the file that it is given.

    Returns:
        Where the file is; a place other than `path` is printed on stderr.

    Raises:
        OSError: it could not be written anywhere.
    """
    try:
        return _replace(path, write)
    except OSError as error:
        failure = error
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        rescue = _free(folder / path.name)
        try:
            _replace(rescue, write)
        except OSError:
            continue
        reason = failure.strerror or failure
        print(f"{path} could not be written ({reason}); the result is in {rescue}", file=sys.stderr)
        return rescue
    raise failure


def _replace(path: Path, write: Callable[[Path], object]) -> Path:
    """The suffix stays last: libraries choose the format by it."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None
    return path


def _free(path: Path) -> Path:
    """The path, numbered where it is taken."""
    numbered = (path.with_stem(f"{path.stem}_{number}") for number in range(1, 1000))
    return next((one for one in (path, *numbered) if not one.exists()), path)
