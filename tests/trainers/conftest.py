from __future__ import annotations

import pytest

from tests.trainers.small_runs import small_trainer


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def make(folder):
    """Trainers of small runs, into one folder each; `keys` as `small_trainer`."""

    def build(pipeline=None, *, name=None, **keys):
        return small_trainer(folder.parent / name if name else folder, pipeline, **keys)

    return build
