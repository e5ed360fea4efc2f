"""Loading a reward from a user's own file: `path/to/file.py:function`.

The file may import modules from its own folder, as a script can, however diffalign was started. They are part of the
reward: they are loaded again with it, and count in its identity (`diffalign.rewards.identity`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from diffalign.naming import nearest
from diffalign.rewards.user_code import naming


def find_file(spec: str) -> tuple[Path, str]:
    """The path and the function's name of `path/to/file.py:function`; a relative path starts at the working directory.

    Raises:
        ValueError: If there is no such file.
    """
    location, _, name = spec.rpartition(":")
    path = Path(location).expanduser().resolve()
    if not path.is_file():
        raise ValueError(
            f"reward {spec!r}: there is no file {path}; give the path from {Path.cwd()} or an absolute one"
        )
    return path, name


def load_function(spec: str) -> Any:
    """Runs the file and returns the function or class that the specification names.

    The file is ordinary Python of the user's own and runs with the user's rights, again at each call. What it raises
    is passed on, with the line as a note.

    Args:
        spec: `path/to/file.py:function`.

    Raises:
        ValueError: If the file or the function is not there, its syntax is wrong, or a module beside it has the name of
            one that is loaded from somewhere else.
    """
    path, name = find_file(spec)
    module = _run(path)
    if not hasattr(module, name):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(
            f"reward {spec!r}: {path} has no {name!r}{nearest(name, offered) or '.'} It defines: "
            f"{', '.join(offered) or 'nothing'}"
        )
    return getattr(module, name)


def _run(path: Path) -> ModuleType:
    """Executes a file as a module under a name of its own, so that two files `rewards.py` do not collide."""
    label = f"diffalign_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(label, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file that can be imported")
    _make_importable(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module  # dataclasses look their module up by name
    try:
        with naming(f"reward file {path}"):
            spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    return module


def _make_importable(path: Path) -> None:
    """Put the folder of a reward file first on the search path, and forget earlier versions of the modules in it."""
    for name, file in local_modules(path).items():
        loaded = sys.modules.get(name)
        if loaded is None:
            continue
        source = getattr(loaded, "__file__", None)
        if source is None or Path(source).resolve() != file:
            raise ValueError(
                f"{path.name} imports {name}, {file} beside it, but a module {name} is loaded already from "
                f"{source or 'Python itself'}: rename the file beside it"
            )
        del sys.modules[name]
    importlib.invalidate_caches()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))


def local_modules(path: Path) -> dict[str, Path]:
    """Modules that a Python file imports from its own folder, and those that they import from it.

    Found in the source, in functions too, without running it; names that are computed are not seen.

    Args:
        path: The file.

    Returns:
        Dotted name -> file, by name.
    """
    found: dict[str, Path] = {}
    waiting = [("", path)]
    while waiting:
        importer, file = waiting.pop()
        package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
        for dotted in _imported(file, package):
            parts = dotted.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                source = _source(path.parent.joinpath(*parts[:end]))
                if source is not None and name not in found and source != path:
                    found[name] = source
                    waiting.append((name, source))
    return dict(sorted(found.items()))


def _source(stem: Path) -> Path | None:
    """The file of a module or package at a path without suffix."""
    candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((file.resolve() for file in candidates if file.is_file()), None)


def _imported(file: Path, package: str) -> Iterator[str]:
    """Dotted names in the import statements of a file; of `from a import b` both `a` and `a.b`, one of which exists."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # raised when the file is run
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" if origin else alias.name for alias in node.names)
