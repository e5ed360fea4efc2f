"""DPG-Bench: long prompts, judged by questions that depend on each other (rules: `diffalign.evaluation.dpg`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.evaluation import dpg
from diffalign.evaluation.judges import Judges
from diffalign.evaluation.suites._files import table_rows
from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite


def read(strict: bool, path: Path) -> list[Record]:
    """Items of dpg_bench.csv."""
    items = dpg.read_items(table_rows(path, dpg.COLUMNS), strict=strict)
    if not items:
        raise ValueError(f"{path} holds no item whose questions are complete")
    return [Record(item.prompt, {"item": item.name, "questions": item.questions}) for item in items]


def make_line(prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """Checks the questions: `dpg.Question`s, or objects with their fields."""
    given = metadata.get("questions")
    if not given:
        raise ValueError(f"the metadata lacks 'questions'; it has {sorted(metadata)}")
    questions = tuple(_question(one) for one in given)
    dpg.scores({q.number: True for q in questions}, questions)  # refuses what cannot be scored before any image is made
    return {"item": metadata.get("item", prompt), "questions": questions}


def _question(given: Any) -> dpg.Question:
    if isinstance(given, dpg.Question):
        return given
    missing = [key for key in dpg.Question._fields if key not in given]
    if missing:
        raise ValueError(f"a question lacks {', '.join(missing)}; it has {sorted(given)}")
    return dpg.Question(given["number"], given["text"], tuple(given["parents"]), given["category"])


def score(strict: bool, images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
    """Mean over the questions; `parts` holds the answers as 0 and 1 in the order of the questions.

    An image with an empty answer (a judge that did not answer) has no score.
    """
    assert judges.answer is not None
    answers = judges.answer(images, [[q.text for q in line["questions"]] for line in lines])
    outcomes = []
    for line, words in zip(lines, answers, strict=True):
        if not all(words):
            outcomes.append(Outcome(math.nan))
            continue
        right = [dpg.is_yes(word) for word in words]
        by_number = dict(zip((q.number for q in line["questions"]), right, strict=True))
        value = dpg.image_score(by_number, line["questions"], strict=strict)
        outcomes.append(Outcome(value, {"answers": [float(one) for one in right]}))
    return outcomes


def details(strict: bool, lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Mean of each category on both levels, in [0, 1]."""
    images: dict[str, list[dict[int, bool]]] = {}
    questions: dict[str, tuple[dpg.Question, ...]] = {}
    for line, outcome in zip(lines, outcomes, strict=True):
        if "answers" not in outcome.parts:
            continue
        numbers = [q.number for q in line["questions"]]
        answers = {n: bool(a) for n, a in zip(numbers, outcome.parts["answers"], strict=True)}
        images.setdefault(line["item"], []).append(answers)
        questions[line["item"]] = line["questions"]
    fine: dict[str, list[float]] = {}
    broad: dict[str, list[float]] = {}
    for item, answers_of in images.items():
        for category, values in dpg.category_values(answers_of, questions[item], strict=strict).items():
            fine.setdefault(category, []).extend(values)
            broad.setdefault(dpg.first_level(category), []).extend(values)
    return {
        "level_1": {name: sum(v) / len(v) for name, v in sorted(broad.items())},
        "level_2": {name: sum(v) / len(v) for name, v in sorted(fine.items())},
    }


def _suite(strict: bool) -> Suite:
    return Suite(
        name="dpg" if strict else "dpg_mended",
        title="DPG-Bench" + ("" if strict else ", mended"),
        source="arXiv 2403.05135; TencentQQGYLab/ELLA",
        needs=("answer",),
        read=partial(read, strict),
        make_line=make_line,
        score_images=partial(score, strict),
        soft="dpg_mended" if strict else "",
        published={"answer": "mplug-large"},
        sheets="item",
        details=partial(details, strict),
    )


SUITES = (_suite(True), _suite(False))
