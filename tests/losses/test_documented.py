"""The page on losses says what stands: every file has its row, every function in a row exists, its Python runs."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
FILES = {path.stem for path in (ROOT / "diffalign" / "losses").glob("*.py")} - {"__init__"}
ROWS = re.findall(r"^\| `(\w+)\.py` \| ([^|]+) \|", PAGE, flags=re.MULTILINE)


def test_every_file_has_a_row_and_every_row_a_file() -> None:
    assert {file for file, _ in ROWS} == FILES


@pytest.mark.parametrize("file", sorted(FILES))
def test_functions_of_the_tables_exist(file: str) -> None:
    module = import_module(f"diffalign.losses.{file}")
    named = [name for row, names in ROWS if row == file for name in re.findall(r"`(\w+)`", names)]
    assert named and [name for name in named if getattr(module, name, None) is None] == []


def test_its_python_runs() -> None:
    scope: dict[str, object] = {}
    found = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 3
    for code in found:  # each goes on where the one before ended
        exec(compile(code, "docs/losses.md", "exec"), scope)  # noqa: S102
