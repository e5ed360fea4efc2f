"""The index pages are what the registry and the ledger say now, and their links lead somewhere."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from diffalign.citations import systems
from diffalign.losses import recipes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("make_index", ROOT / "scripts" / "make_index.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_pages_are_current(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--check"]) == 0, "run `python scripts/make_index.py`"
    assert capsys.readouterr().out == ""


def test_an_old_page_is_found_and_written(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "losses_index.md").write_text("old", encoding="utf-8")
    assert script.main(["--check", "--docs", str(tmp_path)]) == 1
    assert "not current: losses_index.md, paper_index.md" in capsys.readouterr().out
    assert script.main(["--docs", str(tmp_path)]) == 0 and script.main(["--check", "--docs", str(tmp_path)]) == 0


def test_every_loss_and_every_paper_has_a_row(script: ModuleType) -> None:
    losses, papers = script.losses_index(), script.paper_index()
    named = re.findall(r"^\| `([^`]+)`", losses, flags=re.MULTILINE)
    assert sorted(named) == recipes.names()
    built = [row.id for row in systems().values() if row.status in ("works", "partial")]
    assert sorted(re.findall(r"^\| `([^`]+)`", papers, flags=re.MULTILINE)) == sorted(built)


def test_the_page_says_how_many_forms_are_unsure(script: ModuleType) -> None:
    rows = [row.confidence for row in systems().values() if row.status == "works"]
    assert f"{rows.count('derived') + rows.count('unsure')} of the {len(rows)} working rows" in script.paper_index()


def test_rows_link_to_source_and_training_recipe(script: ModuleType) -> None:
    lines = {line.split("`")[1]: line for line in script.paper_index().splitlines() if line.startswith("| `")}
    assert "[shapes-flow/dance_grpo](../scripts/recipes/shapes-flow/dance_grpo.yaml)" in lines["dancegrpo"]
    assert "[preference.simpo](../diffalign/losses/recipes/preference.py)" in lines["simpo"]
    assert (
        "](../rewards/" in lines["gui-g2"]
        and "; implemented: function; the reward plugin" in lines["urpo"]
        and lines["simpo"].endswith("| checked |  |")
    )
    assert script.link("diffalign.losses") == "`diffalign.losses`"
