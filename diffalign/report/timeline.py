"""Pictures over training: one row per prompt, one column per evaluation, always the same seed.

A run keeps one sheet per evaluation, `images/step-000050.png`, made by `image_grid`; `images/samples.json` names
`columns`, `prompts` and `seeds`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from diffalign.report.html import Markup, el
from diffalign.report.run_folder import RunFolder
from diffalign.report.sheets import Cells, cut_sheet, data_uri, open_sheet, shrink

__all__ = ["timeline_section"]

LARGEST, WIDEST = 160, 700  # pixels of one picture, and of a sheet that cannot be cut
MOST_STEPS, MOST_PROMPTS, FEW_STEPS = 8, 12, 4


def timeline_section(run: RunFolder) -> tuple[list[Markup], str]:
    """Cards and the class of their grid.

    A card per prompt with its picture at up to 8 evaluations, one card with whole sheets where they cannot be cut, none
    where there are no sheets.
    """
    sheets = {step: sheet for step, path in _chosen(run.path) if (sheet := open_sheet(path)) is not None}
    samples = run.samples
    cells = {step: cut for step, sheet in sheets.items() if (cut := cut_sheet(sheet, samples)) is not None}
    if samples is None or len(cells) < len(sheets):
        whole = {step: shrink(sheet, WIDEST) for step, sheet in sheets.items()}
        return ([_card("all pictures", None, whole)] if whole else []), "rows"
    return (_cards(samples, cells) if cells else []), "grid wide" if len(cells) <= FEW_STEPS else "rows"


def _chosen(folder: Path) -> list[tuple[int, Path]]:
    """Steps with their sheets, thinned evenly, the first and the last among them."""
    named = [(re.fullmatch(r"step-(\d+)\.png", path.name), path) for path in (folder / "images").glob("step-*.png")]
    found = sorted((int(match[1]), path) for match, path in named if match)
    if len(found) <= MOST_STEPS:
        return found
    return [found[round(i * (len(found) - 1) / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]


def _cards(samples: dict[str, Any], cells: dict[int, Cells]) -> list[Markup]:
    """The first picture of each prompt."""
    first = {str(prompt): number for number, prompt in reversed(list(enumerate(samples["prompts"])))}
    prompts = list(dict.fromkeys(map(str, samples["prompts"])))[:MOST_PROMPTS]
    return [
        _card(
            prompt,
            samples["seeds"][first[prompt]],
            {step: shrink(pictures[first[prompt]], LARGEST) for step, pictures in cells.items()},
        )
        for prompt in prompts
    ]


def _card(title: str, seed: int | None, pictures: dict[int, Image.Image]) -> Markup:
    """A prompt with its pictures by step."""
    note = None if seed is None else el("span", f"seed {seed}", class_="hint")
    row = (
        el("div", el("img", src=data_uri(one), alt=f"step {step}: {title}"), el("span", f"step {step}", class_="tag"))
        for step, one in pictures.items()
    )
    return el("figure", el("figcaption", el("b", title), note), el("div", *row, class_="timeline"), class_="card")
