"""Files that are written at the end: whole, in their place or in another one."""

from __future__ import annotations

import pytest

from diffalign.commands._outputs import check_writable, write_or_rescue


def test_trying_a_place_changes_nothing_in_it(tmp_path):
    path = tmp_path / "deep" / "a.json"
    check_writable(path)
    assert path.parent.is_dir() and not list(path.parent.iterdir())
    path.write_text("older")
    check_writable(path)
    assert path.read_text() == "older"


def test_a_file_that_fails_half_way_leaves_the_older_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.json"
    path.write_text("older")

    def half(place):
        place.write_text("half")
        raise ValueError("the writer is at fault")

    with pytest.raises(ValueError, match="at fault"):
        write_or_rescue(path, half)
    assert path.read_text() == "older" and list(tmp_path.iterdir()) == [path]


def test_the_temporary_folder_is_the_last_resort(tmp_path, monkeypatch, capsys):
    cwd, spare = tmp_path / "cwd", tmp_path / "spare"
    cwd.mkdir()
    spare.mkdir()
    monkeypatch.chdir(cwd)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(spare))

    def full(place):
        if place.parent != spare:
            raise OSError(28, "No space left on device")
        place.write_text("kept")

    assert write_or_rescue(tmp_path / "place" / "a.json", full) == spare / "a.json"
    assert (spare / "a.json").read_text() == "kept"
    assert "a.json could not be written (No space left on device); the result is in" in capsys.readouterr().err


def test_nowhere_to_write_is_the_first_failure(tmp_path):
    def full(place):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_or_rescue(tmp_path / "a.json", full)
