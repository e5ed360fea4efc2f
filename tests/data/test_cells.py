from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffalign.data.cells import cell_names, read_cell
from diffalign.data.images import read_image


def save(pixels: torch.Tensor, path: Path) -> None:
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(path)


def test_cells_are_the_quarters_row_by_row(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    save(pixels, tmp_path / "a.png")
    cells = [read_cell(tmp_path, name) for name in cell_names("a.png")]
    rows = [torch.cat(cells[i : i + 2], 2) for i in (0, 2)]
    assert torch.equal(torch.cat(rows, 1), read_image(tmp_path / "a.png"))
    assert torch.equal(read_cell(tmp_path, "a.png"), read_image(tmp_path / "a.png"))


def test_a_sheet_with_odd_sides_is_refused(tmp_path: Path) -> None:
    save(torch.zeros(3, 5, 8, dtype=torch.uint8), tmp_path / "a.png")
    with pytest.raises(ValueError, match="8 x 5 pixels"):
        read_cell(tmp_path, "a.png#0")
