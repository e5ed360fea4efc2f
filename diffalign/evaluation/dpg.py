"""DPG-Bench's scores as pure functions over answers (Hu et al., ELLA, arXiv 2403.05135).

Rules as released in TencentQQGYLab/ELLA (3c228f1, dpg_bench/compute_dpg_bench.py): a question counts only if all that
it depends on are answered "yes". `strict=True` keeps the released quirks, `strict=False` mends them: the first row of
the table is skipped (`first_row`), an item that then lacks a parent is left out (`lost_items`), parents listed after
their children do not count in time (`row_order`), and the table by category has the last of the four images only,
before dependence (`last_image`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")


class Question(NamedTuple):
    """A question on a prompt.

    Attributes:
        number: its id within the item.
        text: the question.
        parents: ids that it depends on.
        category: "entity - whole"; the part before " - " is its first level.
    """

    number: int
    text: str
    parents: tuple[int, ...]
    category: str


class Item(NamedTuple):
    """A prompt with its questions in the table's order."""

    name: str
    prompt: str
    questions: tuple[Question, ...]


def read_items(rows: Iterable[Mapping[str, str]], *, strict: bool = True) -> list[Item]:
    """Items of the released table (dpg_bench.csv).

    Args:
        rows: one mapping for each row, with the keys `COLUMNS`.
        strict: without the first row, and without items that lack a parent.

    Raises:
        ValueError: a row lacks a column or has a broken number; an item stands in two places, has a number twice, or
            (mended) lacks a parent.
    """
    found: dict[str, list[Question]] = {}
    prompts: dict[str, str] = {}
    last = None
    for index, row in enumerate(rows):
        missing = [column for column in COLUMNS if not row.get(column)]
        if missing:
            raise ValueError(f"row {index + 1} of the DPG-Bench table lacks {', '.join(missing)}; it has {sorted(row)}")
        name = row["item_id"]
        if name in found and name != last:
            raise ValueError(f"row {index + 1}: item {name!r} stands in two places of the table")
        last = name
        question = _question(row, index + 1)
        if strict and index == 0:
            continue
        prompts[name] = row["text"]
        found.setdefault(name, []).append(question)
    items = [Item(name, prompts[name], tuple(questions)) for name, questions in found.items()]
    return [item for item in items if _is_whole(item, strict)]


def scores(answers: Mapping[int, bool], questions: Sequence[Question], *, strict: bool = True) -> dict[int, float]:
    """Each question's score, 0 or 1: its answer, or 0 where something that it depends on has 0.

    Args:
        answers: id of each question -> answered yes.
        questions: questions of the item.
        strict: one pass in the order of `questions`; else however deep the dependence goes.

    Raises:
        ValueError: an answer is missing.
    """
    missing = [q.number for q in questions if q.number not in answers]
    if missing:
        raise ValueError(f"no answer to question {missing[0]}; every question of the item needs one")
    result = {q.number: float(answers[q.number]) for q in questions}
    for _ in range(1 if strict else len(questions)):
        for question in questions:
            if any(result[parent] == 0 for parent in question.parents):
                result[question.number] = 0.0
    return result


def image_score(answers: Mapping[int, bool], questions: Sequence[Question], *, strict: bool = True) -> float:
    """Mean score of an image over its questions, in [0, 1] (the benchmark prints it times 100)."""
    values = scores(answers, questions, strict=strict).values()
    return sum(values) / len(values)


def category_values(
    images: Sequence[Mapping[int, bool]], questions: Sequence[Question], *, strict: bool = True
) -> dict[str, list[float]]:
    """Values that an item adds to the mean of each category.

    Args:
        images: answers for each image of the prompt.
        questions: questions of the item.
        strict: answers of the last image, before dependence; else scores of all images.
    """
    used = (
        [{n: float(a) for n, a in images[-1].items()}]
        if strict
        else [scores(i, questions, strict=False) for i in images]
    )
    values: dict[str, list[float]] = {}
    for question in questions:
        values.setdefault(question.category, []).extend(one[question.number] for one in used)
    return values


def first_level(category: str) -> str:
    """ "entity" of "entity - whole"."""
    return category.split("-")[0].strip()


def is_yes(answer: str) -> bool:
    """Whether an answer in words is a yes: "yes", "Yes.", "yes, it is". mPLUG's own answers are "yes" or "no"."""
    return bool(re.match(r"\s*yes\b", answer.lower()))


def _question(row: Mapping[str, str], number: int) -> Question:
    try:
        parents = tuple(p for p in (int(part) for part in row["dependency"].split(",")) if p != 0)
        index = int(row["proposition_id"])
    except ValueError as error:
        raise ValueError(f"row {number}: proposition_id and dependency must be whole numbers: {error}") from error
    return Question(index, row["question_natural_language"], parents, row["tuple"].split("(")[0].strip())


def _is_whole(item: Item, strict: bool) -> bool:
    """Whether all parents of an item are there."""
    numbers = [q.number for q in item.questions]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"item {item.name!r} has a question twice: {sorted(numbers)}")
    missing = {parent for q in item.questions for parent in q.parents} - set(numbers)
    if missing and not strict:
        raise ValueError(f"item {item.name!r}: questions depend on {sorted(missing)}, which the table does not have")
    return not missing
