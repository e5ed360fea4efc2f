from __future__ import annotations

import math

import pytest
import torch

from diffalign.shapes import CLASSES, COLOURS, render, render_batch, sample_scene
from diffalign.shapes.render import Item, Scene, coverage

AREAS = {"circle": math.pi, "square": 4.0, "triangle": 2.0, "diamond": 2.0, "ring": math.pi * 0.75, "cross": 4 * 0.5511}


@pytest.mark.parametrize("label", sorted(AREAS))
def test_covered_area_is_the_shapes_own(label):
    cover = coverage(label, torch.tensor([15.3]), torch.tensor([16.4]), torch.tensor([7.0]))
    assert cover.sum().item() / 49 == pytest.approx(AREAS[label], rel=0.03)


@pytest.mark.parametrize("label", CLASSES)
def test_shapes_fill_their_box_and_stay_inside(label):
    hit = coverage(label, torch.tensor([16.0]), torch.tensor([16.0]), torch.tensor([6.0]))[0] > 0.5
    rows, columns = hit.any(1).nonzero().flatten(), hit.any(0).nonzero().flatten()
    for low, high in ((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)):
        assert low.item() == pytest.approx(10, abs=1) and high.item() == pytest.approx(22, abs=1)


def test_edges_are_anti_aliased_and_interiors_pure():
    image = render(Scene((Item("circle", "red", COLOURS["red"], 16.0, 16.0, 6.0),)))
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    assert torch.allclose(image[:, 16, 16], torch.tensor(COLOURS["red"]))
    assert torch.allclose(image[:, 0, 0], torch.full((3,), 0.5))
    assert image[0].unique().numel() > 5


def test_later_items_cover_earlier_ones():
    under, over = (Item("square", c, COLOURS[c], 16.0, 16.0, 5.0) for c in ("red", "blue"))
    assert torch.equal(render(Scene((under, over))), render(Scene((over,))))


def test_batch_and_single_rendering_agree(heldout):
    _, scenes, images = heldout
    assert images.min() >= 0 and images.max() <= 1
    for index in (0, 100, 200, 287):
        assert torch.equal(render(scenes[index]), images[index])


def test_the_same_seed_gives_the_same_picture(heldout):
    line = heldout[0][150]
    first, second, other = (
        render(sample_scene(line, torch.Generator().manual_seed(seed))) for seed in (5, 5, 6)
    )  # fmt: skip
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_an_empty_scene_is_plain_background():
    assert torch.equal(render_batch([Scene(())])[0], torch.full((3, 32, 32), 0.5))
