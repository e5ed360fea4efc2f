"""Benchmark suites, one file for each benchmark, found by its file name: a new benchmark is a new file, nothing else.

A module of this package whose name has no leading underscore defines `SUITES`, a tuple of `Suite`. How a command uses
one:

    suite = suites.get("compbench_spatial")
    judges = suite.prepare(Judges(detect=my_detector))       # refuses a missing judge
    lines = suite.read_lines(Path("spatial_val.txt"), judges)  # refuses the prompt file of another suite
    outcomes = suite.score(images, lines, judges)            # one line for each image
    report = summarise(suite, lines, outcomes, judges)
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite
from diffalign.evaluation.suites._summary import summarise
from diffalign.naming import unknown

__all__ = ["Line", "Outcome", "Record", "Suite", "get", "names", "summarise"]


@cache
def _registry() -> dict[str, Suite]:
    found: dict[str, Suite] = {}
    for module in iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        for suite in import_module(f"{__name__}.{module.name}").SUITES:
            if suite.name in found:
                raise ValueError(f"two suites are called {suite.name!r}: one of them is in {module.name}.py")
            found[suite.name] = suite
    return found


def names() -> list[str]:
    """Names of all suites, sorted."""
    return sorted(_registry())


def get(name: str) -> Suite:
    """The suite of a name.

    Raises:
        ValueError: unknown name; the nearest is named.
    """
    if name not in _registry():
        raise unknown("suite", name, names())
    return _registry()[name]
