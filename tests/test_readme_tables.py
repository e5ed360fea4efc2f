"""The tables of the README are those that the package's own discovery makes: python -m tests.readme_tables."""

from __future__ import annotations

import re

import pytest

from tests.readme_tables import ROOT, fresh, methods_table, rewards_table

README = (ROOT / "README.md").read_text(encoding="utf-8")


def written(name: str) -> str:
    """What the README has between its two comments of this name."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", README, flags=re.DOTALL)
    assert found, f"README.md has no <!-- {name} --> table"
    return found[1]


def test_the_rewards() -> None:
    assert written("rewards") == rewards_table(), "run: python -m tests.readme_tables rewards"


@pytest.mark.slow
def test_the_methods_and_models() -> None:
    table = methods_table(fresh)
    assert written("methods") == table, "run: python -m tests.readme_tables methods"
    assert "●" in table and "–" in table
