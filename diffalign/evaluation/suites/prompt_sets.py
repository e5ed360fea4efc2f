"""Suites that are a list of prompts without a rule: any reward model scores the images.

The prompt file is the user's: DrawBench (arXiv 2205.11487; Prompts and Category), PartiPrompts (arXiv 2206.10789;
PartiPrompts.tsv with Prompt, Category, Challenge, Note), or any .txt, .jsonl or .json list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.evaluation.judges import Judges
from diffalign.evaluation.suites import _files
from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite


def read_table(prompt: str, category: str, path: Path) -> list[Record]:
    """Rows of a .csv or .tsv table with a column of prompts and one of categories; or a list of prompts."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        return _files.prompts(path)
    rows = _files.table_rows(path, (prompt, category), "\t" if path.suffix.lower() == ".tsv" else ",")
    return [Record(row[prompt].strip(), {"category": row[category].strip()}) for row in rows if row[prompt].strip()]


def make_line(prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """The category is the task, where there is one."""
    return {"task": str(metadata.get("category") or "all")}


def score(images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
    """What the scorer says."""
    assert judges.score is not None
    return [Outcome(float(value)) for value in judges.score(images, [line["prompt"] for line in lines])]


def _suite(name: str, title: str, source: str, prompt: str, category: str) -> Suite:
    return Suite(
        name=name,
        title=title,
        source=source,
        needs=("score",),
        read=partial(read_table, prompt, category),
        make_line=make_line,
        score_images=score,
        images_per_prompt=1,
        range=None,
    )


SUITES = (
    _suite("drawbench", "DrawBench", "arXiv 2205.11487", "Prompts", "Category"),
    _suite("partiprompts", "PartiPrompts", "arXiv 2206.10789; google-research/parti", "Prompt", "Category"),
    _suite("prompts", "Prompts", "the user's own file", "prompt", "category"),
)
