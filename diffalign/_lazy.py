"""Public names of a package, imported on first use (PEP 562), so that importing the package is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        names: public name -> "module" for the module itself, or "module:attribute".
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; public names: {', '.join(sorted(names))}"
            )
        module, _, attribute = names[name].partition(":")
        value = import_module(module)
        found = getattr(value, attribute) if attribute else value
        setattr(sys.modules[package], name, found)
        return found

    def listed() -> list[str]:
        return sorted({*names, "__version__"} if "." not in package else names)

    return get, listed
