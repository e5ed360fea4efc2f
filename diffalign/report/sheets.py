"""Picture sheets of a run folder: opened, cut into cells, made small, embedded as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from diffalign.data.images import read_image
from diffalign.report.grids import split_grid, to_pictures

__all__ = ["Cells", "cut_sheet", "data_uri", "open_sheet", "shrink"]

HEAVY = 150_000  # bytes of a PNG above which WebP is used
Cells = list[Image.Image]


def open_sheet(path: Path) -> Image.Image | None:
    """A picture file, None where it is absent or damaged."""
    try:
        return to_pictures(read_image(path)[None])[0] if path.is_file() else None
    except ValueError:
        return None


def cut_sheet(sheet: Image.Image, samples: Mapping[str, Any] | None) -> Cells | None:
    """Cells of a sheet in sample order.

    Args:
        sheet: made by `image_grid`.
        samples: content of `samples.json`: `columns`, and `prompts` and `seeds`, one of each per cell.

    Returns:
        One picture per sample; None where `samples` does not describe the sheet.
    """
    prompts, seeds, columns = ((samples or {}).get(key) for key in ("prompts", "seeds", "columns"))
    if not (isinstance(prompts, list) and isinstance(seeds, list) and isinstance(columns, int)):
        return None
    if not prompts or columns < 1 or len(prompts) != len(seeds):
        return None
    return split_grid(sheet, columns, len(prompts))


def shrink(picture: Image.Image, largest: int) -> Image.Image:
    """A copy whose longer side is at most `largest` pixels."""
    copy = picture.copy()
    copy.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return copy


def data_uri(picture: Image.Image) -> str:
    """PNG, or WebP where a photograph makes the PNG heavy."""
    for kind, options in (("png", {}), ("webp", {"quality": 85})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        if buffer.tell() <= HEAVY:
            break
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
