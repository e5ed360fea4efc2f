"""Runs the files of `interpreted/` in a process whose Triton interprets its kernels on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

FOLDER = Path(__file__).parent / "interpreted"
FILES = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "conftest.py")


def release(module: Any) -> tuple[int, ...]:
    """`3.9.0` -> (3, 9)."""
    return tuple(int(part) for part in module.__version__.split(".")[:2])


@pytest.mark.parametrize("file", FILES)
def test_the_kernels_of(file: str) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if release(triton) < (3, 9) and release(numpy) >= (2, 4):
        pytest.skip(f"the interpreter of Triton {triton.__version__} fails on numpy {numpy.__version__}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(FOLDER / file)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=FOLDER.parents[2], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
