"""docs/metrics.md names every metric that the report knows and that a run folder holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from diffalign.report.update_panels import BY_INDEX, HEALTH

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def patterns() -> list[str]:
    """The documented keys as regular expressions: `<name>` is any text, `/k` a number."""
    rows = [line.split("|")[1] for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    keys = [key for row in rows for key in re.findall("`(.*?)`", row)]
    return [re.sub("<.*?>", ".+", key).removesuffix("/k") + (r"/\d+" if key.endswith("/k") else "") for key in keys]


def test_every_key_of_a_run_is_documented(finished_run, patterns):
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    keys = {key for row in rows for key in row} - {"event"}
    unknown = {key for key in keys if not any(re.fullmatch(pattern, key) for pattern in patterns)}
    assert len(keys) > 40 and not unknown


def test_every_drawn_metric_is_documented(patterns):
    assert {spec.key for spec in HEALTH} <= set(patterns)
    assert {spec.key + r"/\d+" for spec in BY_INDEX} <= set(patterns)
