"""Loading a reward from a user's own file: `path/to/file.py:function`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from diffalign.naming import nearest


def load_function(spec: str) -> Any:
    """Runs the file and returns the function or class that the specification names.

    The file is ordinary Python of the user's own and runs with the user's rights, afresh at each call. What it raises
    is passed on as it is.

    Args:
        spec: `path/to/file.py:function`; a relative path starts at the working directory.

    Raises:
        ValueError: If the file or the function is not there.
    """
    location, _, name = spec.rpartition(":")
    path = Path(location).expanduser().resolve()
    if not path.is_file():
        raise ValueError(
            f"reward {spec!r}: there is no file {path}; give the path from {Path.cwd()} or an absolute one"
        )
    module = _run(path)
    if not hasattr(module, name):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(
            f"reward {spec!r}: {path} has no {name!r}{nearest(name, offered) or '.'} It defines: "
            f"{', '.join(offered) or 'nothing'}"
        )
    return getattr(module, name)


def _run(path: Path) -> ModuleType:
    """Executes a file as a module under a name of its own, so that two files `rewards.py` do not meet."""
    label = f"diffalign_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(label, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file that can be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module
