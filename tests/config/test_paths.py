"""`~` and variables in paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffalign.config import expanded


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["~/runs/a", "$HOME/runs/a", "${HOME}/runs/a"])
def test_home_is_found_in_every_spelling(path: str, home: Path) -> None:
    assert expanded(path) == str(home / "me" / "runs/a")


@pytest.mark.parametrize("path", ["runs/a", "/tmp/a", "shapes:heldout", "owner/model", "a~b/c$", "mine.py:reward", ""])
def test_anything_else_stays_as_it_is(path: str) -> None:
    assert expanded(path) == path


@pytest.mark.parametrize(
    ("path", "missing"), [("$NOWHERE_SET/a", "variable NOWHERE_SET"), ("~nobody_here/a", "user nobody_here")]
)
def test_what_is_not_set_is_an_error_not_a_folder_of_that_name(path: str, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        expanded(path)


def test_an_existing_path_with_such_a_name_is_taken_literally(home: Path) -> None:
    os.mkdir("~own")
    assert expanded("~own") == "~own"
