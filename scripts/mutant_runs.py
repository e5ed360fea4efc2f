"""Running one test file against many changes of one module (see mutants.py).

pytest collects once; then each change gets a forked child, which re-executes the changed module, gives every function
that is already bound elsewhere its new code, and runs the tests, quickest first, until one fails.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

LEAST_LIMIT, LIMIT_FACTOR = 2.0, 5.0  # seconds; times what the tests take unchanged
ASLEEP = 20  # a child that does not compute gets this many times as long
PASSED, NOTICED, LATE = 0, 1, 2


def transplant(old: Any, new: Any, same: dict[int, Any]) -> None:
    """Gives ``old``, a function or a class, the behaviour of ``new``; whoever holds ``old`` sees it."""
    if isinstance(old, FunctionType) and isinstance(new, FunctionType):
        old.__code__ = new.__code__
        old.__defaults__ = tuple(same.get(id(value), value) for value in new.__defaults__ or ())
        old.__kwdefaults__ = {name: same.get(id(value), value) for name, value in (new.__kwdefaults__ or {}).items()}
        for cell, other in zip(old.__closure__ or (), new.__closure__ or (), strict=True):
            if not isinstance(other.cell_contents, FunctionType | type):
                cell.cell_contents = other.cell_contents
            elif cell.cell_contents is not old:  # what a decorator wraps, not a function that calls itself
                transplant(cell.cell_contents, other.cell_contents, same)
    elif isinstance(old, type) and isinstance(new, type):
        for name, value in list(vars(new).items()):
            if not isinstance(value, type):  # autograd functions hold classes that hold them
                transplant(vars(old).get(name), value, same)
    elif isinstance(old, property) and isinstance(new, property):
        transplant(old.fget, new.fget, same)
    elif isinstance(old, classmethod | staticmethod) and isinstance(new, classmethod | staticmethod):
        transplant(old.__func__, new.__func__, same)


def forget(source: str) -> None:
    """Takes the recipes that a source registers out of the registry, so that it may register them again."""
    known = getattr(sys.modules.get("diffalign.losses.recipes.registry"), "_recipes", {})
    for name in re.findall(r"""\brecipe\(\s*["']([^"']+)""", source):
        known.pop(name, None)


def kept(name: str, old: Any, module: ModuleType) -> bool:
    """Whether a name keeps the object it had: a function or class of the module, or a container filled since import."""
    new = vars(module)[name]
    own = isinstance(old, FunctionType | type) and old.__module__ == module.__name__
    state = isinstance(old, dict | list | set) and not name.startswith("__") and not new
    return new is not old and (own or state)


def execute(module: ModuleType, source: str) -> None:
    """Re-executes a module from a changed source; its functions and classes keep their identity, and it its state."""
    forget(source)
    before = dict(vars(module))
    exec(compile(source, str(module.__file__), "exec"), vars(module))  # noqa: S102
    pairs = [(name, old, vars(module)[name]) for name, old in before.items() if kept(name, old, module)]
    vars(module).update({name: old for name, old, _ in pairs})
    for _, old, new in pairs:
        transplant(old, new, {id(other): first for _, first, other in pairs})


def forked(work: Callable[[], None], limit: float) -> int:
    """Exit status of ``work`` in a child; NOTICED if it raised or crashed, LATE past ``limit`` seconds of CPU."""
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, ASLEEP * limit)
        status = NOTICED
        try:
            work()
            status = PASSED
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM):
        return LATE
    return PASSED if status == 0 else NOTICED


class Runs:
    """A pytest plugin that replaces the running of tests by runs of them, one for each change."""

    def __init__(self, module: str, sources: list[str]) -> None:
        self.module, self.sources = module, sources
        self.outcomes = [PASSED] * len(sources)
        self.error = "no tests were collected"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Ends the child at the first failure."""
        if report.failed:
            os._exit(NOTICED)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Times the unchanged tests, then runs every change."""
        if session.testsfailed or not session.items:
            return True
        module = importlib.import_module(self.module)
        seconds = self.unchanged(session.items, module, Path(str(module.__file__)).read_text())
        if len(seconds) < len(session.items):
            self.error = "its tests fail without any change, or when it is executed anew"
            return True
        self.error = ""
        items = [item for _, item in sorted(zip(seconds, session.items, strict=True), key=lambda pair: pair[0])]
        limit = max(LEAST_LIMIT, LIMIT_FACTOR * sum(seconds))
        for i, source in enumerate(self.sources):
            self.outcomes[i] = forked(lambda source=source: self.run(items, module, source), limit)
        return True

    def run(self, items: list[pytest.Item], module: ModuleType, source: str) -> None:
        """All tests against one source, in a child."""
        execute(module, source)
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

    def unchanged(self, items: list[pytest.Item], module: ModuleType, source: str) -> list[float]:
        """Seconds of each test; fewer than there are tests if one fails."""
        read, write = os.pipe()

        def work() -> None:
            execute(module, source)
            for item, following in zip(items, [*items[1:], None], strict=True):
                start = time.monotonic()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                os.write(write, f"{time.monotonic() - start} ".encode())

        forked(work, 3600.0)
        os.close(write)
        with os.fdopen(read) as pipe:
            return [float(word) for word in pipe.read().split()]


def run_all(module: str, sources: list[str], test: Path) -> tuple[list[int], str]:
    """Outcome of each change of a module under its test file, and what kept it from looking, empty if nothing did."""
    runs = Runs(module, sources)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu", str(test)], plugins=[runs])
    return runs.outcomes, runs.error
