"""Released prompt files where they lie beside the project; tests on them skip elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def released_file(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the released prompt file {name} is not here (looked in {FOLDER})")
    return path


def compbench(category: str) -> list[str]:
    lines = released_file(f"t2i_compbench/{category}_val.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip()]


def geneval() -> list[dict[str, Any]]:
    return [json.loads(line) for line in released_file("geneval/evaluation_metadata.jsonl").read_text().splitlines()]
