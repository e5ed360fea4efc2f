"""Pictures of suite results: some prompts of every task beside each other, and the best and worst of one result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from diffalign.data.cells import read_cell
from diffalign.report.grids import READABLE, to_pictures
from diffalign.report.html import Markup
from diffalign.report.numbers import score, typographic
from diffalign.report.pictures import picture_card, strip
from diffalign.report.suite_results import SuiteResult

__all__ = ["extremes", "prompts_by_task"]

PROMPTS_PER_TASK, EXTREMES, IMAGES = 4, 8, 4
"""Cards per task, cards of the best and of the worst, and most images in a strip."""
Line = dict[str, Any]
Scored = tuple[float, Line, str]
"""Score, prompt, file of one image."""


def prompts_by_task(results: Sequence[SuiteResult]) -> dict[str, list[Markup]]:
    """Cards of a few prompts of each task, one strip per result; tasks without a picture are left out."""
    out: dict[str, list[Markup]] = {}
    tables = [_by_prompt(one) for one in results]
    lines = results[0].content["prompts"]
    for task in dict.fromkeys(line["task"] for line in lines):
        own = [(key, line) for key, line in _by_prompt(results[0]).items() if line["task"] == task]
        cards = [_card(results, [table.get(key) for table in tables]) for key, _ in spread(own, PROMPTS_PER_TASK)]
        kept = [card for card in cards if card is not None]
        if kept:
            out[task] = kept
    return out


def extremes(result: SuiteResult) -> list[tuple[str, str, list[Markup]]]:
    """Title, note and cards of the best and of the worst images of a result; no more than half of it each."""
    if result.folder is None:
        return []
    scored = [
        (value, line, file)
        for line in result.content["prompts"]
        for value, file in zip(line["images"], line["files"], strict=True)
        if value is not None
    ]
    number = min(EXTREMES, len(scored) // 2)
    worst, best = (_mixed(scored, sign)[:number] for sign in (1, -1))
    note = "The {} scores among all images; equal ones are taken from all tasks and from different prompts in turn."
    return [
        ("worst images", note.format("lowest"), [card for one in worst if (card := _one(result, *one))]),
        ("best images", note.format("highest"), [card for one in best if (card := _one(result, *one))]),
    ]


def _mixed(scored: list[Scored], sign: int) -> list[Scored]:
    """Images by score (`sign` 1: the lowest first); among equal scores the tasks, then their prompts, take turns."""
    of_prompt, of_task = Counter[Any](), Counter[Any]()
    keyed = []
    for place, (value, line, file) in enumerate(scored):
        again = of_prompt[value, line["task"], line["prompt"]]
        turn = of_task[value, line["task"], again]
        of_prompt[value, line["task"], line["prompt"]] += 1
        of_task[value, line["task"], again] += 1
        keyed.append(((sign * value, again, turn, place), (value, line, file)))
    return [one for _, one in sorted(keyed, key=lambda pair: pair[0])]


def spread(items: list[Any], count: int) -> list[Any]:
    """`count` items at even distances, all where there are fewer."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]


def _card(results: Sequence[SuiteResult], lines: Sequence[Line | None]) -> Markup | None:
    """One prompt; None where no result has a picture of it."""
    pictures = {}
    for result, line in zip(results, lines, strict=True):
        if line is not None and (found := _pictures(result, line["files"][:IMAGES])):
            pictures[f"{result.label} {typographic(score(line['score'], 2))}"] = strip(found)
    title = next((str(line["prompt"]) for line in lines if line is not None), "")
    return picture_card(title, pictures, None) if pictures else None


def _one(result: SuiteResult, value: float, line: Line, file: str) -> Markup | None:
    """One image with its score."""
    found = _pictures(result, [file])
    tag = typographic(score(value, 3))
    return picture_card(str(line["prompt"]), {tag: strip(found)}, line["task"].replace("_", " ")) if found else None


def _pictures(result: SuiteResult, files: Sequence[str]) -> list[Image.Image]:
    """Pictures that can be opened; small ones are enlarged by a whole factor, so that a pixel stays a square."""
    if result.folder is None:
        return []
    found = (_open(result.folder, file) for file in files)
    return [_readable(one) for one in found if one is not None]


def _open(folder: Path, file: str) -> Image.Image | None:
    """A picture, None where it is absent or damaged."""
    try:
        return to_pictures(read_cell(folder, file)[None])[0]
    except ValueError:
        return None


def _readable(picture: Image.Image) -> Image.Image:
    factor = max(1, -(-READABLE // min(picture.size)))
    size = picture.width * factor, picture.height * factor
    return picture.resize(size, Image.Resampling.NEAREST) if factor > 1 else picture


def _by_prompt(result: SuiteResult) -> dict[tuple[str, str, int], Line]:
    """Lines by task, prompt and the number among lines of that prompt."""
    out: dict[tuple[str, str, int], Line] = {}
    for line in result.content["prompts"]:
        number = 0
        while (line["task"], line["prompt"], number) in out:
            number += 1
        out[line["task"], line["prompt"], number] = line
    return out
