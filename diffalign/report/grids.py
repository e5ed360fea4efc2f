"""Sheets of pictures: a grid, and pairs before/after on the same seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["PAD", "before_after", "image_grid", "split_grid", "to_pictures"]

PAD = 4  # pixels between cells and around the sheet
LABEL_HEIGHT = 18  # pixels above a row of cells that has labels
FONT_SIZE = 12
READABLE = 96  # pixels: smaller pictures are enlarged by a whole factor up to this side
PAPER = (255, 255, 255)
INK = (60, 60, 60)


def image_grid(
    images: Tensor, columns: int, scale: int | None = None, labels: Sequence[str] | None = None
) -> Image.Image:
    """Lay pictures out row by row.

    Args:
        images: `(N, 3, H, W)` in [0, 1]; values outside are clamped, NaN becomes black.
        columns: Pictures per row.
        scale: Whole enlargement factor, nearest neighbour, so that a pixel stays a sharp square. None: the factor that
            brings the shorter side of small pictures to at least 96 pixels (x3 for 32 pixels), 1 for larger ones.
        labels: `N` texts above the pictures, cut to the width of a picture.

    Returns:
        An RGB picture of `columns` by `ceil(N / columns)` cells.

    Raises:
        ValueError: If the shape is not `(N, 3, H, W)` with N > 0, `columns` or `scale` is below 1, or the number of
            labels differs.
    """
    _check(images, columns, scale, labels)
    count, _, height, width = images.shape
    scale = scale or max(1, -(-READABLE // min(height, width)))
    cell = (width * scale, height * scale)
    head = LABEL_HEIGHT if labels else 0
    rows = -(-count // columns)
    sheet = Image.new("RGB", (PAD + columns * (cell[0] + PAD), PAD + rows * (cell[1] + head + PAD)), PAPER)
    for i, picture in enumerate(to_pictures(images)):
        row, column = divmod(i, columns)
        x, y = PAD + column * (cell[0] + PAD), PAD + row * (cell[1] + head + PAD)
        if labels:
            _write(sheet, (x, y), labels[i], cell[0])
        sheet.paste(picture.resize(cell, Image.Resampling.NEAREST), (x, y + head))
    return sheet


def before_after(
    before: Tensor, after: Tensor, columns: int, scale: int | None = None, labels: Sequence[str] | None = None
) -> Image.Image:
    """Pairs on the same seeds: each picture before with the one after directly to its right.

    Args:
        before: `(N, 3, H, W)` in [0, 1].
        after: `(N, 3, H, W)` in [0, 1], same prompts and seeds in the same order.
        columns: Pairs per row.
        scale: As in `image_grid`.
        labels: `N` texts, one above each pair's left picture.

    Returns:
        An RGB picture.

    Raises:
        ValueError: If the two do not have one shape, or as `image_grid`.
    """
    if before.shape != after.shape:
        raise ValueError(f"pairs need one shape, got {tuple(before.shape)} before and {tuple(after.shape)} after")
    pairs = torch.stack([before, after], dim=1).flatten(0, 1)
    doubled = None if labels is None else [text for label in labels for text in (label, "")]
    return image_grid(pairs, 2 * columns, scale, doubled)


def split_grid(sheet: Image.Image, columns: int, count: int) -> list[Image.Image] | None:
    """Cut a sheet made by `image_grid` without labels back into its cells; None where the size does not fit one.

    Args:
        sheet: The sheet.
        columns: Pictures per row.
        count: Number of pictures, at least 1.
    """
    rows = -(-count // columns)
    (width, rest_x), (height, rest_y) = divmod(sheet.width - PAD, columns), divmod(sheet.height - PAD, rows)
    if rest_x or rest_y or width <= PAD or height <= PAD:
        return None
    corners = ((PAD + (i % columns) * width, PAD + (i // columns) * height) for i in range(count))
    return [sheet.crop((x, y, x + width - PAD, y + height - PAD)) for x, y in corners]


def _check(images: Tensor, columns: int, scale: int | None, labels: Sequence[str] | None) -> None:
    """Refuse what is not a batch of pictures."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        raise ValueError(f"images must be (N, 3, H, W) with at least one picture, got shape {tuple(images.shape)}")
    if columns < 1 or (scale is not None and scale < 1):
        raise ValueError(f"columns and scale must be at least 1, got columns={columns}, scale={scale}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} pictures need {len(images)} labels, got {len(labels)}")


def to_pictures(images: Tensor) -> list[Image.Image]:
    """8-bit pictures of `(N, 3, H, W)` floats; values outside [0, 1] are clamped, NaN becomes black."""
    pixels = images.detach().float().nan_to_num(0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return [Image.fromarray(one) for one in pixels.permute(0, 2, 3, 1).cpu().contiguous().numpy()]


def _write(sheet: Image.Image, corner: tuple[int, int], text: str, width: int) -> None:
    """Write one line of text, cut with an ellipsis to `width` pixels."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    text = " ".join(text.split())
    if draw.textlength(text, font) > width:
        while text and draw.textlength(text + "…", font) > width:
            text = text[:-1]
        text = text.rstrip() + "…"
    draw.text(corner, text, fill=INK, font=font)
