"""GenEval: six tasks, judged by a detector and a colour classifier (rules: `diffalign.evaluation.geneval`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.evaluation import geneval
from diffalign.evaluation.geneval_prompts import TAGS
from diffalign.evaluation.judges import Detection, Judges
from diffalign.evaluation.suites._files import json_lines, record_of
from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite

Rule = Callable[[Sequence[Detection], Line], float]


def read(path: Path) -> list[Record]:
    """Lines of evaluation_metadata.jsonl."""
    records = [record_of(row, f"{path}, line {number}") for number, row in enumerate(json_lines(path), 1)]
    for number, record in enumerate(records, 1):
        if record.metadata.get("tag") not in TAGS or "include" not in record.metadata:
            raise ValueError(
                f"{path}, line {number} is no GenEval line: it needs `tag` (one of {', '.join(TAGS)}) and `include`, "
                f"it has {sorted(record.metadata)}"
            )
    return records


def make_line(prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """Checks GenEval's metadata."""
    for key in ("tag", "include"):
        if not metadata.get(key):
            raise ValueError(f"the metadata lacks {key!r}; it has {sorted(metadata)}")
    for name in ("include", "exclude"):
        for index, clause in enumerate(metadata.get(name, ())):
            _check_clause(clause, f"{name}[{index}]", index)
    return {**metadata, "task": metadata["tag"]}


def _check_clause(clause: Any, where: str, index: int) -> None:
    if not isinstance(clause, Mapping) or not isinstance(clause.get("class"), str):
        raise ValueError(f"{where} needs a `class`, got {clause!r}")
    count = clause.get("count")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"{where} needs a `count` of at least 1, got {count!r}")
    if "position" in clause:
        relation, target = clause["position"]
        if relation not in ("left of", "right of", "above", "below") or not 0 <= target < index:
            raise ValueError(
                f"{where}: `position` is [relation, index of an earlier clause], got {clause['position']!r}"
            )


def labels(line: Line) -> list[str]:
    """Classes that a line asks for or excludes."""
    return list(dict.fromkeys(c["class"] for name in ("include", "exclude") for c in line.get(name, ())))


def detect(images: Tensor, lines: Sequence[Line], judges: Judges) -> list[list[Detection]]:
    """Detections of each image, with the colours that the rules ask for."""
    assert judges.detect is not None
    found = judges.detect(images, [labels(line) for line in lines])
    asked = [_asked_for_color(objects, line) for objects, line in zip(found, lines, strict=True)]
    if judges.color is None:
        unknown = next((d for objects in asked for d in objects if d.color is None), None)
        if unknown is not None:
            raise ValueError(
                f"suite geneval asks for the colour of {unknown.label!r}, which the detector does not name: give a "
                "judge for color"
            )
        return found
    rows = [i for i, objects in enumerate(asked) if objects]
    if not rows:
        return found
    names = judges.color(images[rows], [asked[i] for i in rows])
    for i, colors in zip(rows, names, strict=True):
        named = {id(d): replace(d, color=color) for d, color in zip(asked[i], colors, strict=True)}
        found[i] = [named.get(id(d), d) for d in found[i]]
    return found


def _asked_for_color(objects: Sequence[Detection], line: Line) -> list[Detection]:
    """The best `count` objects of each clause with a colour."""
    kept = geneval.keep(objects, line)
    clauses = [clause for clause in line["include"] if "color" in clause]
    chosen = [d for clause in clauses for d in kept.get(clause["class"], [])[: clause["count"]]]
    return list({id(d): d for d in chosen}.values())


def _scorer(rule: Rule) -> Callable[[Tensor, Sequence[Line], Judges], list[Outcome]]:
    def score(images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
        found = detect(images, lines, judges)
        return [Outcome(float(rule(objects, line))) for objects, line in zip(found, lines, strict=True)]

    return score


def details(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Shares of right images and of prompts with any right image, as the released script prints them."""
    scored = [(line, o.score) for line, o in zip(lines, outcomes, strict=True) if o.score == o.score]
    summary = geneval.summary([line for line, _ in scored], [score for _, score in scored])
    return {key: summary[key] for key in ("image_accuracy", "prompt_accuracy")}


_GENEVAL = Suite(
    name="geneval",
    title="GenEval",
    source="arXiv 2310.11513; djghosh13/geneval",
    needs=("detect",),
    optional=("color",),
    read=read,
    make_line=make_line,
    score_images=_scorer(geneval.correct),
    soft="geneval_soft",
    published={"detect": "mmdet-mask2former-swin-s", "color": "clip"},
    overall="tasks",
    details=details,
)
_SOFT = replace(
    _GENEVAL, name="geneval_soft", title="GenEval, graded", score_images=_scorer(geneval.soft), soft="", published={}
)
_REFERENCE = replace(
    _GENEVAL, published={}, name="geneval_reference", title="GenEval, as graded by Flow-GRPO's reward server",
    source="arXiv 2505.05470; yifan123/reward-server", score_images=_scorer(geneval.soft_reference), range=None,
)  # fmt: skip
SUITES = (_GENEVAL, _SOFT, _REFERENCE)
