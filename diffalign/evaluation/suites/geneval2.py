"""GenEval 2: Soft-TIFA by atoms and by prompts (rules: `diffalign.evaluation.geneval2`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.evaluation import geneval2
from diffalign.evaluation.judges import Judges
from diffalign.evaluation.suites._files import json_lines, record_of
from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite

Combine = Callable[[Sequence[float]], float]


def read(path: Path) -> list[Record]:
    """Lines of geneval2_data.jsonl."""
    records = []
    for number, row in enumerate(json_lines(path), 1):
        try:
            geneval2.check_line(row)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no GenEval 2 line: {error}") from error
        records.append(record_of(row, f"{path}, line {number}"))
    return records


def make_line(prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """Checks the record."""
    geneval2.check_line(metadata)
    return {key: metadata[key] for key in ("atom_count", "vqa_list", "skills")}


def score(combine: Combine, images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
    """One mean or the other of the atoms, which are in `parts`; no score where an atom has no probability (NaN)."""
    assert judges.answer_probability is not None
    questions = [[geneval2.ask(question) for question, _ in line["vqa_list"]] for line in lines]
    accepted = [[geneval2.spellings(*pair) for pair in line["vqa_list"]] for line in lines]
    found = judges.answer_probability(images, questions, accepted)
    whole = [[min(1.0, p) for p in atoms] if all(map(math.isfinite, atoms)) else None for atoms in found]
    return [Outcome(math.nan) if atoms is None else Outcome(combine(atoms), {"atoms": atoms}) for atoms in whole]


def details(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Arithmetic means by skill and geometric means by number of atoms, in [0, 1]."""
    scored = [(line, o.parts["atoms"]) for line, o in zip(lines, outcomes, strict=True) if "atoms" in o.parts]
    atoms = [one for _, one in scored]
    return {
        "by_skill": geneval2.by_skill(atoms, [line["skills"] for line, _ in scored]),
        "by_atom_count": geneval2.by_atom_count(atoms, [line["atom_count"] for line, _ in scored]),
    }


def _suite(name: str, title: str, combine: Combine) -> Suite:
    return Suite(
        name=name,
        title=title,
        source="arXiv 2512.16853; facebookresearch/GenEval2",
        needs=("answer_probability",),
        read=read,
        make_line=make_line,
        score_images=partial(score, combine),
        published={"answer_probability": "qwen3-vl-8b-instruct"},
        images_per_prompt=1,
        details=details,
    )


SUITES = (
    _suite("geneval2", "GenEval 2, Soft-TIFA GM", geneval2.geometric_score),
    _suite("geneval2_am", "GenEval 2, Soft-TIFA AM", geneval2.mean_score),
)
