"""HRS-Bench's counting, spatial, size and colour skills in three levels (rules: `hrs`, `hrs_counting`, `hrs_color`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.evaluation import hrs, hrs_color, hrs_counting
from diffalign.evaluation.judges import Detection, Judges
from diffalign.evaluation.suites._files import table_rows
from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite, no_details

LEVELS = ("easy", "medium", "hard")
Rule = Callable[[Tensor, Sequence[Detection], Line, bool], Outcome]
PROMPT_COLUMN = {"counting": "vanilla_prompt"}


def read(skill: str, columns: tuple[str, ...], path: Path) -> list[Record]:
    """Rows of a skill's table; a third of them is a level. Prompts are the written ones where the table has them."""
    rows = table_rows(path, ("meta_prompt", "synthetic_prompt", *columns))
    third = len(rows) // 3
    if not third:
        raise ValueError(f"{path} has {len(rows)} rows; the three levels need at least three")
    records = []
    for index, row in enumerate(rows[: 3 * third]):
        prompt = row["synthetic_prompt"] or row.get(PROMPT_COLUMN.get(skill, "meta_prompt"), "")
        records.append(Record(prompt.strip(), {"task": LEVELS[index // third], **_fields(row)}))
    return records


def _fields(row: Mapping[str, str]) -> dict[str, Any]:
    """Objects, relations, colours and numbers of a row, each as a list without its empty places."""
    fields = {"objects": "obj", "relations": "rel", "colors": "color", "numbers": "n"}
    lists = {key: [row.get(f"{stem}{i}", "").strip() for i in range(1, 5)] for key, stem in fields.items()}
    return {key: [value for value in values if value] for key, values in lists.items() if any(values)}


def _need(metadata: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    missing = [key for key in keys if not metadata.get(key)]
    if missing:
        raise ValueError(f"the metadata lacks {', '.join(missing)}; it has {sorted(metadata)}")
    return {"task": metadata.get("task", "all"), **{key: list(metadata[key]) for key in keys}}


def counting_line(prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """Classes and numbers; of a class that stands twice the later number counts, as released."""
    line = _need(metadata, "objects", "numbers")
    numbers = [int(float(number)) for number in line["numbers"]]
    wanted = {name: number for name, number in zip(line["objects"], numbers, strict=False) if number > 0}
    if not wanted:
        raise ValueError(f"no class has a number above 0: {metadata}")
    return {**line, "wanted": wanted, "objects": list(wanted)}


def relation_line(known: tuple[str, ...], prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """Two to four objects and their relations."""
    line = _need(metadata, "objects", "relations")
    if not 2 <= len(line["objects"]) <= 4:
        raise ValueError(f"'objects' must name two to four classes, got {line['objects']}")
    wrong = [relation for relation in line["relations"] if relation not in known]
    if wrong:
        raise ValueError(f"'relations' has {wrong[0]!r}; valid: {', '.join(known)}")
    return line


def color_line(prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """Objects and a colour for each."""
    line = _need(metadata, "objects", "colors")
    wrong = [color for color in line["colors"] if color not in hrs_color.COLORS]
    if wrong or len(line["colors"]) != len(line["objects"]):
        raise ValueError(f"'colors' needs one of {', '.join(hrs_color.COLORS)} for each object, got {line['colors']}")
    return line


def _counting(image: Tensor, found: Sequence[Detection], line: Line, strict: bool) -> Outcome:
    counts = hrs_counting.counting(found, line["wanted"])
    return Outcome(hrs_counting.precision_recall([counts])["f1"], {"counts": list(map(float, counts))})


def _spatial(image: Tensor, found: Sequence[Detection], line: Line, strict: bool) -> Outcome:
    return Outcome(float(hrs.spatial(found, line["objects"], line["relations"], strict=strict)))


def _size(image: Tensor, found: Sequence[Detection], line: Line, strict: bool) -> Outcome:
    return Outcome(float(hrs.size(found, line["objects"], line["relations"], strict=strict)))


def _color(image: Tensor, found: Sequence[Detection], line: Line, strict: bool) -> Outcome:
    objects = list(zip(line["objects"], line["colors"], strict=True))
    return Outcome(hrs_color.color(image, found, objects, strict=strict))


def score(rule: Rule, strict: bool, images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
    """The rule on each image and its detections."""
    assert judges.detect is not None
    found = judges.detect(images, [line["objects"] for line in lines])
    return [rule(image, objects, line, strict) for image, objects, line in zip(images, found, lines, strict=True)]


def counting_details(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Precision, recall and F1 of each level from the summed counts, and their means: what the paper prints."""
    levels: dict[str, list[hrs_counting.Counts]] = {}
    for line, outcome in zip(lines, outcomes, strict=True):
        if "counts" not in outcome.parts:
            continue
        levels.setdefault(line["task"], []).append(hrs_counting.Counts(*map(int, outcome.parts["counts"])))
    table = {level: hrs_counting.precision_recall(counts) for level, counts in levels.items()}
    mean = {key: sum(row[key] for row in table.values()) / len(table) for key in ("precision", "recall", "f1")}
    return {**table, "mean": mean}


_SIDES = ("on the right of", "on the left of", *hrs.ABOVE, *hrs.BELOW, *hrs.BETWEEN)
_SKILLS: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, Any]], Rule]] = {
    "counting": (("n1", "obj1", "n2", "obj2"), counting_line, _counting),
    "spatial": (("obj1", "obj2", "obj3", "obj4", "rel1", "rel2"), partial(relation_line, _SIDES), _spatial),
    "size": (
        ("obj1", "obj2", "obj3", "obj4", "rel1", "rel2"),
        partial(relation_line, (*hrs.BIGGER, *hrs.SMALLER)),
        _size,
    ),
    "color": (("obj1", "obj2", "obj3", "obj4", "color1", "color2"), color_line, _color),
}


def _suite(skill: str, strict: bool) -> Suite:
    columns, line, rule = _SKILLS[skill]
    segments = skill == "color"
    return Suite(
        name=f"hrs_{skill}" + ("" if strict else "_mended"),
        title=f"HRS-Bench {skill}" + ("" if strict else ", mended"),
        source="arXiv 2304.05390; eslambakr/HRS_benchmark",
        needs=("detect",),
        read=partial(read, skill, columns),
        make_line=line,
        score_images=partial(score, rule, strict),
        soft=f"hrs_{skill}_mended" if strict and skill != "counting" else "",
        published={"detect": "maskdino-swin-l" if segments else "unidet-rs101"},
        images_per_prompt=3,
        overall="tasks",
        details=counting_details if skill == "counting" else no_details,
    )


SUITES = tuple(_suite(skill, strict) for strict in (True, False) for skill in _SKILLS if strict or skill != "counting")
