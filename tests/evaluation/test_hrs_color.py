"""Hues are OpenCV's (compared outside the tree on 262,144 pixels), verdicts those of hue_based_color_classifier.py."""

from __future__ import annotations

import colorsys
import math

import pytest
import torch

from diffalign.evaluation import hrs_color
from diffalign.evaluation.judges import Detection

WHOLE = torch.ones(4, 4, dtype=torch.bool)


def filled(*rgb: int) -> torch.Tensor:
    return torch.tensor(rgb).view(3, 1, 1).expand(3, 4, 4) / 255


@pytest.mark.parametrize(
    ("rgb", "hue"),  # cv2.cvtColor
    [
        ((255, 0, 0), 0), ((0, 255, 0), 60), ((0, 0, 255), 120), ((255, 128, 0), 15), ((250, 240, 20), 29),
        ((10, 60, 200), 112), ((200, 30, 90), 169), ((128, 128, 128), 0), ((90, 200, 210), 93), ((33, 7, 91), 129),
    ],
)  # fmt: skip
def test_hues_are_those_of_opencv(rgb, hue):
    assert hrs_color.hue(filled(*rgb)).unique().tolist() == [hue]


def test_hues_are_half_the_angle():
    image = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
    for row, pixels in zip(hrs_color.hue(image), image.permute(1, 2, 0), strict=True):
        for value, pixel in zip(row.tolist(), pixels.tolist(), strict=True):
            exact = colorsys.rgb_to_hsv(*pixel)[0] * 180
            assert min(abs(value - exact), 180 - abs(value - exact)) <= 0.65  # rounded, after 12 bits of fixed point


@pytest.mark.parametrize(
    ("hue", "name"),
    [(0, "red"), (14.9, "red"), (15, "orange"), (22, "yellow"), (38.9, "yellow"), (39, "green"), (77, "green"),
     (78, "blue"), (130, "blue"), (131, "red"), (179, "red"), (math.nan, "red")],
)  # fmt: skip
def test_colours_of_known_hues(hue, name):
    assert hrs_color.color_name(hue) == name


def test_red_lies_at_both_ends_of_the_scale():
    image = torch.cat([filled(255, 40, 0)[:, :2], filled(255, 0, 40)[:, :2]], dim=1)  # hues 5 and 175
    assert hrs_color.mean_hue(image, WHOLE) == pytest.approx(90, abs=1)  # released: blue
    mended = hrs_color.mean_hue(image, WHOLE, strict=False)
    assert min(mended, 180 - mended) < 1


def test_pure_red_and_grey_pixels_in_a_mask():
    image = torch.cat([filled(255, 0, 0)[:, :2], filled(0, 255, 0)[:, :1], filled(90, 90, 90)[:, :1]], dim=1)
    assert hrs_color.mean_hue(image, WHOLE) == 60  # released: red has hue 0 and does not count
    assert hrs_color.mean_hue(image, WHOLE, strict=False) < 39  # two of three are red
    grey = filled(90, 90, 90)
    assert math.isnan(hrs_color.mean_hue(grey, WHOLE)) and math.isnan(hrs_color.mean_hue(grey, WHOLE, strict=False))
    dogs = [Detection("dog", 0.9, (0.0, 0.0, 4.0, 4.0), mask=WHOLE)]
    assert hrs_color.color(grey, dogs, [("dog", "red")]) == 1  # released: nothing is red
    assert hrs_color.color(grey, dogs, [("dog", "red")], strict=False) == 0


def test_each_object_needs_one_mask_in_its_colour():
    image = torch.cat([filled(0, 255, 0)[:, :, :2], filled(0, 0, 255)[:, :, :2]], dim=2)
    left = torch.zeros(4, 4, dtype=torch.bool)
    left[:, :2] = True
    found = [
        Detection("dog", 0.9, (0.0, 0.0, 2.0, 4.0), mask=left),
        Detection("dog", 0.8, (2.0, 0.0, 4.0, 4.0), mask=~left),
    ]
    for objects, expected in (
        ([("dog", "green")], 1), ([("dog", "blue")], 1), ([("dog", "red")], 0), ([("cat", "green")], 0),
        ([("dog", "green"), ("cat", "blue")], 0.5),
    ):  # fmt: skip
        assert hrs_color.color(image, found, objects) == expected
    assert hrs_color.color(image, [found[0]], [("dog", "blue")]) == 0
    assert hrs_color.color(image.flip(-1), [found[0]], [("dog", "blue")]) == 1


@pytest.mark.parametrize(
    ("mask", "objects", "said"),
    [
        (None, [("dog", "red")], "needs a mask"),
        (torch.ones(2, 2, dtype=torch.bool), [("dog", "red")], r"got \(2, 2\)"),
        (WHOLE, [("dog", "pink")], "pink"),
        (WHOLE, [], "no object"),
    ],
)
def test_what_cannot_be_scored_is_an_error(mask, objects, said):
    with pytest.raises(ValueError, match=said):
        hrs_color.color(filled(255, 0, 0), [Detection("dog", 0.9, (0.0, 0.0, 4.0, 4.0), mask=mask)], objects)
