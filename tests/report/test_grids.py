"""Picture sheets: every pixel where it belongs, sharp enlargement, pairs, cutting back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffalign.report.grids import PAD, before_after, image_grid, split_grid


@pytest.fixture
def images():
    """`(5, 3, 6, 8)` random pictures on the 8-bit grid."""
    return torch.randint(0, 256, (5, 3, 6, 8), generator=torch.manual_seed(0)) / 255


def pixels(picture: Image.Image) -> torch.Tensor:
    """`(3, H, W)` in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def test_cells_hold_the_pictures_in_row_order(images):
    sheet = image_grid(images, columns=3, scale=1)
    assert sheet.size == (PAD + 3 * (8 + PAD), PAD + 2 * (6 + PAD))
    fourth = sheet.crop((PAD, PAD + 6 + PAD, PAD + 8, PAD + 6 + PAD + 6))
    torch.testing.assert_close(pixels(fourth), images[3])


@pytest.mark.parametrize("scale", [1, 3])
def test_cutting_gives_the_pictures_back(images, scale):
    cells = split_grid(image_grid(images, columns=2, scale=scale), columns=2, count=5)
    for cell, image in zip(cells, images, strict=True):
        expected = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        torch.testing.assert_close(pixels(cell), expected)


@pytest.mark.parametrize(("size", "side"), [(32, 96), (96, 96), (50, 100), (512, 512)])
def test_small_pictures_are_enlarged_by_a_whole_factor(size, side):
    sheet = image_grid(torch.zeros(1, 3, size, size), columns=1)
    assert sheet.size == (side + 2 * PAD, side + 2 * PAD)


def test_values_outside_the_range_are_clamped_and_nan_is_black():
    corner = torch.tensor([[-1.0, 2.0], [float("nan"), 1.0]]).expand(1, 3, 2, 2)
    shown = pixels(split_grid(image_grid(corner, 1, scale=1), 1, 1)[0])
    torch.testing.assert_close(shown[0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


def test_gradients_and_half_precision_are_accepted(images):
    sheet = image_grid(images.half().requires_grad_(), 3, scale=1)
    assert np.abs(np.asarray(sheet).astype(int) - np.asarray(image_grid(images, 3, scale=1)).astype(int)).max() <= 1


def test_pairs_stand_side_by_side(images):
    cells = split_grid(before_after(images, 1 - images, columns=2, scale=1), columns=4, count=10)
    torch.testing.assert_close(pixels(cells[2]), images[1])
    torch.testing.assert_close(pixels(cells[3]), 1 - images[1])


def test_labels_are_written_above_their_picture_and_stay_inside_it():
    black = torch.zeros(2, 3, 40, 40)
    plain, labelled = (image_grid(black, 2, scale=1, labels=labels) for labels in (None, ["", "é 図 " + "wide " * 40]))
    assert labelled.height > plain.height and labelled.width == plain.width
    head = 255 - np.asarray(labelled.convert("L"))[PAD : labelled.height - 40 - PAD].astype(int)
    assert head[:, : PAD + 40].max() == 0
    assert head[:, 2 * PAD + 40 : 2 * PAD + 80].max() > 100
    assert head[:, 2 * PAD + 80 :].max() == 0


def test_a_sheet_of_another_layout_is_not_cut(images):
    assert split_grid(image_grid(images, columns=3, scale=1), columns=7, count=5) is None
    assert split_grid(Image.new("RGB", (5, 5)), columns=1, count=9) is None


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ((3, 8, 8), {}, "N, 3, H, W"),
        ((2, 1, 8, 8), {}, "N, 3, H, W"),
        ((0, 3, 8, 8), {}, "at least one"),
        ((2, 3, 8, 8), {"columns": 0}, "columns"),
        ((2, 3, 8, 8), {"scale": 0}, "scale"),
        ((2, 3, 8, 8), {"labels": ["one"]}, "2 labels"),
    ],
)
def test_bad_input_is_refused(shape, options, match):
    with pytest.raises(ValueError, match=match):
        image_grid(torch.zeros(shape), **{"columns": 2, **options})


def test_pairs_of_two_shapes_are_refused(images):
    with pytest.raises(ValueError, match="one shape"):
        before_after(images, images[:3], columns=2)
