"""HPDv2's benchmark: four styles of prompts, scored by a preference model (table: `diffalign.evaluation.hpdv2`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.evaluation import hpdv2
from diffalign.evaluation.judges import Judges
from diffalign.evaluation.suites import _files
from diffalign.evaluation.suites._suite import Line, Outcome, Record, Suite


def read(path: Path) -> list[Record]:
    """Prompts of a style's file (`anime.json`), or of all four in a folder; the file's name is the style."""
    files = [path / f"{style}.json" for style in hpdv2.STYLES] if path.is_dir() else [path]
    wrong = next((file for file in files if file.stem not in hpdv2.STYLES), None)
    if wrong is not None:
        raise ValueError(f"{wrong} is no file of HPDv2's benchmark: their names are {', '.join(hpdv2.STYLES)} (.json)")
    return [Record(r.prompt, {"style": file.stem}) for file in files for r in _files.prompts(file)]


def make_line(prompt: str, metadata: Mapping[str, Any], judges: Judges) -> dict[str, Any]:
    """The style is the task."""
    style = metadata.get("style")
    if style not in hpdv2.STYLES:
        raise ValueError(f"the metadata needs `style`, one of {', '.join(hpdv2.STYLES)}; got {style!r}")
    return {"task": style}


def score(images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
    """The preference model's score, times 100 as the benchmark prints it."""
    assert judges.score is not None
    values = judges.score(images, [line["prompt"] for line in lines])
    return [Outcome(100 * float(value)) for value in values]


def details(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Mean and deviation of each style's groups of 80, in the order of the prompts; None where a score is missing."""
    styles: dict[str, list[float]] = {}
    for line, outcome in zip(lines, outcomes, strict=True):
        styles.setdefault(line["task"], []).append(outcome.score)
    whole = {style: scores for style, scores in styles.items() if all(s == s for s in scores)}
    return {
        style: hpdv2.style_score(whole[style])._asdict() if style in whole else None for style in styles
    }  # fmt: skip


SUITES = (
    Suite(
        name="hpdv2",
        title="HPDv2 benchmark",
        source="arXiv 2306.09341; tgxs002/HPSv2",
        needs=("score",),
        read=read,
        make_line=make_line,
        score_images=score,
        published={"score": "hpsv2"},
        images_per_prompt=1,
        details=details,
        range=None,
    ),
)
