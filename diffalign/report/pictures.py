"""The before/after pictures of a page, grouped by prompt, embedded as data."""

from __future__ import annotations

from itertools import groupby

from PIL import Image

from diffalign.report.html import Markup, el
from diffalign.report.run_folder import RunFolder
from diffalign.report.sheets import Cells, cut_sheet, data_uri, open_sheet, shrink

__all__ = ["picture_card", "picture_section", "strip"]

LARGEST = 256  # pixels: larger pictures are reduced for the page, the files beside it keep the full size
WIDEST = 1600  # pixels, for a sheet that is shown whole
GAP = 4  # pixels between the pictures of a strip


def picture_section(run: RunFolder) -> list[Markup]:
    """Cards of prompts with a strip before and a strip after; whole sheets where they cannot be cut; [] without any."""
    found = {tag: open_sheet(run.path / f"images/{tag}.png") for tag in ("before", "after")}
    sheets = {tag: sheet for tag, sheet in found.items() if sheet is not None}
    cells = {tag: cut for tag, sheet in sheets.items() if (cut := cut_sheet(sheet, run.samples)) is not None}
    if cells and len(cells) == len(sheets):
        return _cards(run, cells)
    return [picture_card(f"{tag}, all samples", {tag: shrink(sheet, WIDEST)}, None) for tag, sheet in sheets.items()]


def _cards(run: RunFolder, cells: dict[str, Cells]) -> list[Markup]:
    """One card per prompt, in the order of the samples."""
    samples = run.samples or {}
    rows = list(enumerate(zip(samples["prompts"], samples["seeds"], strict=True)))
    cards = []
    for prompt, group in groupby(rows, key=lambda row: row[1][0]):
        members = list(group)
        strips = {tag: strip([pictures[i] for i, _ in members]) for tag, pictures in cells.items()}
        seeds = ", ".join(str(seed) for _, (_, seed) in members)
        cards.append(picture_card(str(prompt), strips, f"seed{'s' * (len(members) > 1)} {seeds}"))
    return cards


def picture_card(title: str, pictures: dict[str, Image.Image], note: str | None) -> Markup:
    """A prompt with its pictures, one row per tag, and a note below the title."""
    rows = (
        el(
            "div",
            el("span", tag, class_="tag"),
            el("img", src=data_uri(picture), alt=f"{tag}: {title}"),
            class_="strip",
        )
        for tag, picture in pictures.items()
    )
    caption = el("figcaption", el("b", title), el("span", note, class_="hint") if note else None)
    return el("figure", caption, el("div", *rows, class_="strips"), class_="card")


def strip(cells: Cells) -> Image.Image:
    """Pictures side by side on a transparent ground."""
    small = [shrink(cell, LARGEST) for cell in cells]
    width, height = small[0].size
    row = Image.new("RGBA", (len(small) * (width + GAP) - GAP, height))
    for i, cell in enumerate(small):
        row.paste(cell, (i * (width + GAP), 0))
    return row
