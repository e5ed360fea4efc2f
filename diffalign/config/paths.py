"""Paths as a user writes them."""

from __future__ import annotations

import os
import re


def expanded(path: str) -> str:
    """The path with `~`, `~user`, `$NAME` and `${NAME}` replaced; anything else is returned as it is.

    A path that exists as it is written is not touched, so that a folder whose name really starts with `~` stays
    reachable. Works for `file.py:function` and for names that are not paths (hub ids, `shapes:heldout`) as well.

    Raises:
        ValueError: a variable that is not set, or a user that does not exist: a folder of that literal name would be
            made otherwise.
    """
    if os.path.exists(path):
        return path
    result = os.path.expanduser(os.path.expandvars(path))
    missing = re.match(r"~[\w.-]*", result) or re.search(r"\$(\{\w+\}|[A-Za-z_]\w*)", result)
    if missing:
        kind = "user" if missing[0].startswith("~") else "environment variable"
        raise ValueError(f"{path}: there is no {kind} {missing[0].strip('~${}') or '(no home folder is known)'}")
    return result
