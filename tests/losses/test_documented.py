"""The pages on losses are current: every file has its row, every function and recipe in a row exists, Python runs."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from diffalign.losses import recipes

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


def test_recipes_of_the_table_of_trl_and_verl_exist() -> None:
    text = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8").split("## Losses of TRL and verl")[1]
    cells = [row.split("|")[3] for row in text.splitlines() if row.startswith("|")]
    found = [name for cell in cells for name in re.findall(r"`([a-z0-9+-]+)`", cell)]
    assert len(found) > 70 and set(found) <= set(recipes.names()), set(found) - set(recipes.names())
