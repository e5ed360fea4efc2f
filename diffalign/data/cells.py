"""Images that share one file: a sheet of four, as DPG-Bench's own scripts have them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from diffalign.data.images import read_image

SIDE = 2
CELLS = SIDE * SIDE


def cell_names(sheet: str) -> list[str]:
    """Names of a sheet's cells, row by row: `1.png#0` to `1.png#3`."""
    return [f"{sheet}#{number}" for number in range(CELLS)]


def read_cell(folder: Path, name: str) -> Tensor:
    """An image file, or a cell of a sheet, within a folder.

    Args:
        folder: where the file is.
        name: of a file, or of `cell_names`.

    Returns:
        `(3, H, W)` float32 in [0, 1], RGB.

    Raises:
        ValueError: as `read_image`, or a sheet whose sides are odd.
    """
    file, mark, number = name.rpartition("#")
    if not mark or not number.isdigit():
        return read_image(folder / name)
    sheet = read_image(folder / file)
    height, width = (side // SIDE for side in sheet.shape[1:])
    if (height * SIDE, width * SIDE) != tuple(sheet.shape[1:]):
        raise ValueError(f"{folder / file} is no sheet of {SIDE} x {SIDE} images: it has {sheet.shape[2]} x "
                         f"{sheet.shape[1]} pixels")  # fmt: skip
    row, column = divmod(int(number), SIDE)
    return sheet[:, row * height : (row + 1) * height, column * width : (column + 1) * width].clone()
