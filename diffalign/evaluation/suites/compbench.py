"""T2I-CompBench(++): eight suites, one for each category, as released and mended (rules: `compbench_*`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.evaluation import compbench_attributes as attributes
from diffalign.evaluation import compbench_prompts as prompts
from diffalign.evaluation.compbench_depth import spatial_depth
from diffalign.evaluation.compbench_numeracy import numeracy
from diffalign.evaluation.compbench_spatial import spatial
from diffalign.evaluation.judges import Judges
from diffalign.evaluation.suites import _files
from diffalign.evaluation.suites._compbench_files import CATEGORIES, check_category
from diffalign.evaluation.suites._compbench_lines import READERS, LineReader
from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite

Rule = Callable[[Tensor, Sequence[Line], Judges, bool], list[float]]


def _attribute(images: Tensor, lines: Sequence[Line], judges: Judges, strict: bool) -> list[float]:
    assert judges.yes is not None
    answers = judges.yes(images, [[attributes.clean(q) for q in line["questions"]] for line in lines])
    return [attributes.attribute(a, strict=strict) if all(map(math.isfinite, a)) else math.nan for a in answers]


def _spatial(images: Tensor, lines: Sequence[Line], judges: Judges, strict: bool) -> list[float]:
    assert judges.detect is not None
    found = judges.detect(images, [_labels(line) for line in lines])
    size = images.shape[2], images.shape[3]
    return [spatial(objects, line["pair"], size, strict=strict) for objects, line in zip(found, lines, strict=True)]


def _depth(images: Tensor, lines: Sequence[Line], judges: Judges, strict: bool) -> list[float]:
    assert judges.detect is not None and judges.depth is not None
    found = judges.detect(images, [_labels(line) for line in lines])
    maps = judges.depth(images)
    return [
        spatial_depth(objects, line["pair"], depth, strict=strict)
        for objects, line, depth in zip(found, lines, maps, strict=True)
    ]


def _numeracy(images: Tensor, lines: Sequence[Line], judges: Judges, strict: bool) -> list[float]:
    assert judges.detect is not None
    found = judges.detect(images, [[counted.name for counted in line["counts"]] for line in lines])
    size = images.shape[2], images.shape[3]
    return [numeracy(objects, line["counts"], size, strict=strict) for objects, line in zip(found, lines, strict=True)]


def _similarity(images: Tensor, lines: Sequence[Line], judges: Judges, strict: bool) -> list[float]:
    assert judges.similarity is not None
    return [float(value) for value in judges.similarity(images, [line["text"] for line in lines])]


def _complex(images: Tensor, lines: Sequence[Line], judges: Judges, strict: bool) -> list[float]:
    """Each judge sees only the images whose type needs it."""
    asked = {"yes": ("spatial", "action", "both"), "detect": ("spatial", "both"), "similarity": ("action", "both")}
    rules: dict[str, Rule] = {"yes": _attribute, "detect": _spatial, "similarity": _similarity}
    values = {role: [0.0] * len(lines) for role in rules}
    for role, rule in rules.items():
        rows = [i for i, line in enumerate(lines) if line["kind"] in asked[role]]
        if rows:
            for i, value in zip(rows, rule(images[rows], [lines[i] for i in rows], judges, strict), strict=True):
                values[role][i] = value
    parts = zip(values["yes"], values["detect"], values["similarity"], strict=True)
    return [attributes.three_in_one(line["kind"], *part) for line, part in zip(lines, parts, strict=True)]


def _labels(line: Line) -> list[str]:
    pair = line["pair"]
    return list(dict.fromkeys((*pair.first, *pair.second))) if pair else []


def _make_line(
    reader: LineReader, strict: bool, prompt: str, metadata: Mapping[str, Any], judges: Judges
) -> dict[str, Any]:
    assert judges.parse is not None
    text = prompts.as_released(prompt) if strict else prompt
    return reader(text, judges.parse(text), metadata, strict)


def _score(rule: Rule, strict: bool, images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
    """The rule's values; a mended cosine below 0 is 0, as in CLIPScore."""
    values = rule(images, lines, judges, strict)
    return [Outcome(value if strict or not value < 0 else 0.0) for value in values]


def _read(category: str, path: Path) -> list[Record]:
    records = _files.prompts(path)
    foreign = {key for record in records for key in record.metadata} & {"include", "vqa_list"}
    if foreign:
        raise ValueError(f"{path} is no prompt file of T2I-CompBench: its lines have the field {min(foreign)!r}")
    check_category(category, [record.prompt for record in records], str(path))
    return records


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("color", "shape", "texture"), _attribute),
    "spatial": _spatial,
    "3d_spatial": _depth,
    "numeracy": _numeracy,
    "non_spatial": _similarity,
    "complex": _complex,
}
_JUDGES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("color", "shape", "texture"), {"yes": "blip_vqa"}),
    "spatial": {"detect": "unidet-rs200"},
    "3d_spatial": {"detect": "unidet-r50", "depth": "dpt"},
    "numeracy": {"detect": "unidet-r50"},
    "non_spatial": {"similarity": "clip"},
    "complex": {"yes": "blip_vqa", "detect": "unidet-rs200", "similarity": "clip"},
}


def _suite(category: str, strict: bool) -> Suite:
    rule, judges = _RULES[category], _JUDGES[category]
    return Suite(
        name=f"compbench_{category}" + ("" if strict else "_mended"),
        title=f"T2I-CompBench {category}" + ("" if strict else ", mended"),
        source="arXiv 2307.06350; Karine-Huang/T2I-CompBench",
        needs=("parse", *judges),
        read=partial(_read, category),
        make_line=partial(_make_line, READERS[category], strict),
        score_images=partial(_score, rule, strict),
        soft=f"compbench_{category}_mended" if strict else "",
        published={"parse": "spacy", **judges},
        images_per_prompt=10,
        file_names="prompt",
        range=(-1.0, 1.0) if strict and "similarity" in judges else (0.0, 1.0),
    )


SUITES = tuple(_suite(category, strict) for strict in (True, False) for category in CATEGORIES)
