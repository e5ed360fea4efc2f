"""Errors raised in code of users: a note that names the reward, the type of the error and the line."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

LIBRARIES = tuple(
    {
        str(Path(__file__).absolute().parents[1]),  # diffalign itself
        *(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
"""Folders whose code is not the user's."""


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Adds a note to an exception raised inside: `KeyError in reward 'warmth' (my_rewards.py:7, in warmth)`.

    Args:
        what: What was running, such as `reward 'warmth'`.
    """
    try:
        yield
    except Exception as error:
        error.add_note(f"{type(error).__name__} in {what}{place(error.__traceback__)}")
        raise


def place(trace: TracebackType | None) -> str:
    """` (file:line, in function)` of the deepest frame in a user's code, empty where there is none."""
    own = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(("<", *LIBRARIES))]
    if not own:
        return ""
    path = Path(own[-1].filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f" ({shown}:{own[-1].lineno}, in {own[-1].name})"
