"""The before/after pictures of a page, grouped by prompt, embedded as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from diffalign.report.grids import split_grid
from diffalign.report.html import Markup, el
from diffalign.report.run_folder import RunFolder

__all__ = ["picture_section"]

LARGEST = 256  # pixels: larger pictures are reduced for the page, the files beside it keep the full size
WIDEST = 1600  # pixels, for a sheet that is shown whole
GAP = 4  # pixels between the pictures of a strip
Cells = list[Image.Image]


def picture_section(run: RunFolder) -> list[Markup]:
    """Cards of prompts with a strip before and a strip after; whole sheets where they cannot be cut; [] without any."""
    sheets = {tag: sheet for tag in ("before", "after") if (sheet := _open(run.path / f"images/{tag}.png")) is not None}
    cells = {tag: cut for tag, sheet in sheets.items() if (cut := _cut(sheet, run)) is not None}
    if cells and len(cells) == len(sheets):
        return _cards(run, cells)
    return [_figure(f"{tag}, all samples", {tag: _shrink(sheet, WIDEST)}, None) for tag, sheet in sheets.items()]


def _cards(run: RunFolder, cells: dict[str, Cells]) -> list[Markup]:
    """One card per prompt, in the order of the samples."""
    samples = run.samples or {}
    rows = list(enumerate(zip(samples["prompts"], samples["seeds"], strict=True)))
    cards = []
    for prompt, group in groupby(rows, key=lambda row: row[1][0]):
        members = list(group)
        strips = {tag: _strip([pictures[i] for i, _ in members]) for tag, pictures in cells.items()}
        cards.append(_figure(str(prompt), strips, [seed for _, (_, seed) in members]))
    return cards


def _figure(title: str, pictures: dict[str, Image.Image], seeds: Sequence[int] | None) -> Markup:
    """A prompt with its pictures, one row per tag."""
    note = (
        None
        if seeds is None
        else el("span", f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}", class_="hint")
    )
    rows = (
        el("div", el("span", tag, class_="tag"), el("img", src=_data(picture), alt=f"{tag}: {title}"), class_="strip")
        for tag, picture in pictures.items()
    )
    caption = el("figcaption", el("b", title), note)
    return el("figure", caption, el("div", *rows, class_="strips"), class_="card")


def _cut(sheet: Image.Image, run: RunFolder) -> Cells | None:
    """Cells of a sheet in sample order; None where samples.json does not describe it."""
    samples = run.samples or {}
    prompts, seeds, columns = (samples.get(key) for key in ("prompts", "seeds", "columns"))
    if not (isinstance(prompts, list) and isinstance(seeds, list) and isinstance(columns, int)):
        return None
    if not prompts or columns < 1 or len(prompts) != len(seeds):
        return None
    return split_grid(sheet, columns, len(prompts))


def _strip(cells: Cells) -> Image.Image:
    """Pictures side by side on a transparent ground."""
    small = [_shrink(cell, LARGEST) for cell in cells]
    width, height = small[0].size
    strip = Image.new("RGBA", (len(small) * (width + GAP) - GAP, height))
    for i, cell in enumerate(small):
        strip.paste(cell, (i * (width + GAP), 0))
    return strip


def _shrink(picture: Image.Image, largest: int) -> Image.Image:
    """A copy whose longer side is at most `largest` pixels."""
    copy = picture.copy()
    copy.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return copy


def _open(path: Path) -> Image.Image | None:
    """A picture file, None where it is absent or cut off."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None


def _data(picture: Image.Image) -> str:
    """Data URI: PNG, or WebP where a photograph makes the PNG heavy."""
    for kind, options in (("png", {}), ("webp", {"quality": 85})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        if buffer.tell() <= 150_000:
            break
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
