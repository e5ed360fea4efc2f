"""The ledger says only what is true: tests and entry points exist, and every row has one honest status.

Test nodes are found by reading the source, not by importing it, so that the check costs nothing. A parameter in
brackets is not looked up. Besides works, partial and out there is ``planned``: nothing stands yet, and nothing is
claimed.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from diffalign.citations import System, systems

ROOT = Path(__file__).resolve().parents[1]
CONFIDENCE = {"", "checked", "second-hand", "known", "derived", "unsure"}
GOOD = System(
    "x", "X", "2305.13301", "", "known", "diffalign.citations.cite",
    "tests/test_citations.py::test_an_entry_names_title_and_number", "works", "",
)  # fmt: skip


@cache
def names_of_tests(path: str) -> frozenset[str]:
    """Names of the tests of one file: ``test_a`` and ``TestB::test_a``."""
    file = ROOT / path
    if not re.fullmatch(r"tests/.*test_\w+\.py", path) or not file.is_file():
        return frozenset()
    body = ast.parse(file.read_text(encoding="utf-8")).body
    classes = [(f"{c.name}::", c.body) for c in body if isinstance(c, ast.ClassDef) and c.name.startswith("Test")]
    return frozenset(
        prefix + node.name
        for prefix, nodes in [("", body), *classes]
        for node in nodes
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    )


def importable(dotted: str) -> bool:
    """Whether a dotted name leads to a module or to an attribute of one."""
    parts = dotted.split(".")
    if parts[0] != "diffalign":
        return False
    depth = 1
    while depth < len(parts) and find_spec(".".join(parts[: depth + 1])):
        depth += 1
        if not getattr(import_module(".".join(parts[:depth])), "__path__", None):
            break
    target: object = import_module(".".join(parts[:depth]))
    for name in parts[depth:]:
        if not hasattr(target, name):
            return False
        target = getattr(target, name)
    return True


def built_problems(row: System) -> list[str]:
    """What is wrong with a row that claims an entry point and a test."""
    path, _, name = row.test.partition("::")
    found = []
    if not row.entry_point or not importable(row.entry_point):
        found.append(f"{row.id}: unknown entry point {row.entry_point!r}")
    if name.split("[")[0] not in names_of_tests(path):
        found.append(f"{row.id}: unknown test {row.test!r}")
    if row.status == "partial" and not row.note:
        found.append(f"{row.id}: a partial row must say in its note what is missing")
    return found


def problems(rows: Iterable[System]) -> list[str]:
    """Everything that is wrong with these rows."""
    rows = list(rows)
    found = []
    for row in rows:
        if row.status in ("works", "partial"):
            found += built_problems(row)
        elif row.status not in ("planned", "out"):
            found.append(f"{row.id}: unknown status {row.status!r}")
        elif row.entry_point or row.test:
            found.append(f"{row.id}: a row that is {row.status} must not claim an entry point or a test")
        elif row.status == "out" and not row.note:
            found.append(f"{row.id}: a row that is out needs its reason")
        if not row.title or not re.fullmatch(r"(\d{4}\.\d{5})?", row.arxiv):
            found.append(f"{row.id}: no title, or not an arXiv number: {row.arxiv!r}")
        if row.confidence not in CONFIDENCE or (row.confidence in ("checked", "second-hand")) != bool(row.source):
            found.append(f"{row.id}: confidence {row.confidence!r} does not go with source {row.source!r}")
    twice = [test for test, n in Counter(row.test for row in rows if row.status == "works").items() if n > 1]
    return found + [f"two rows that work share the test {test}" for test in twice]


def test_the_ledger_is_true() -> None:
    assert problems(systems().values()) == []


def test_the_ledger_is_whole() -> None:
    assert len(systems()) == 413
    assert {"ddpo", "flow-grpo", "dancegrpo", "flow-cps", "bench-geneval", "diffusion-dpo", "dpo"} <= systems().keys()


def test_a_true_row_passes() -> None:
    assert (
        problems(
            [GOOD, GOOD._replace(id="y", status="partial", note="no trainer"), GOOD._replace(test=GOOD.test + "[a]")]
        )
        == []
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entry_point": "diffalign.citations.nothing"}, "unknown entry point"),
        ({"entry_point": "diffalign.nowhere.cite"}, "unknown entry point"),
        ({"entry_point": "os.path.join"}, "unknown entry point"),
        ({"entry_point": ""}, "unknown entry point"),
        ({"test": "tests/test_citations.py::test_nothing"}, "unknown test"),
        ({"test": "tests/test_nowhere.py::test_a"}, "unknown test"),
        ({"test": "tests/test_citations.py"}, "unknown test"),
        ({"test": ""}, "unknown test"),
        ({"status": "done"}, "unknown status"),
        ({"status": "partial"}, "what is missing"),
        ({"status": "planned"}, "must not claim"),
        ({"status": "out", "entry_point": "", "test": ""}, "needs its reason"),
        ({"arxiv": "2305.133"}, "arXiv number"),
        ({"title": ""}, "no title"),
        ({"confidence": "certain"}, "confidence"),
        ({"confidence": "checked"}, "does not go with source"),
        ({"confidence": "", "source": "a repository"}, "does not go with source"),
    ],
)
def test_a_false_row_is_found(change: dict[str, str], said: str) -> None:
    (message,) = problems([GOOD._replace(**change)])
    assert said in message


def test_two_rows_that_work_may_not_share_a_test() -> None:
    assert problems([GOOD, GOOD._replace(id="y")]) == [f"two rows that work share the test {GOOD.test}"]
