"""A report says how its figures were made, and where it was slower."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPORTS = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "reports").glob("*.md"))


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_a_report_names_its_command_machine_versions_baseline_and_losses(report):
    assert re.search(r"_(cpu|[a-z]+\d+\w*)_\d{4}-\d{2}-\d{2}$", report.stem) or report.stem.startswith("mutants_")
    items = set(re.findall(r"^- ([A-Z][\w ]+?)s?:", report.read_text(encoding="utf-8"), flags=re.MULTILINE))
    needed = {"What", "Command", "Machine", "Version"}
    needed |= set() if report.stem.startswith("mutants_") else {"Baseline", "Statistic", "Won", "Lost"}
    assert needed <= items
