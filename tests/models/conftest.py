"""Tiny pipelines, built and saved once per session and reloaded as users load them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging

from tests.models.matrix import MATRIX


@pytest.fixture(scope="session")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """name of a row -> a fresh pipeline from its saved folder."""
    folders: dict[str, Path] = {}

    def load(name: str, dtype: torch.dtype = torch.float32) -> Any:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        row = MATRIX[name]
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            built = row.build()
            built.save_pretrained(folders[name])
        pipeline = DiffusionPipeline.from_pretrained(folders[name], dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        row.prepare(pipeline)
        return pipeline

    return load


@pytest.fixture(scope="session")
def shared(reloaded: Callable[[str], Any]) -> Callable[[str], Any]:
    """name of a row -> one pipeline for all tests that leave it as it is."""
    return cache(reloaded)
