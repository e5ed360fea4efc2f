"""Values marked released were printed by main() of UniDet_eval/3D_spatial_eval.py (1b709499) on these detections."""

from __future__ import annotations

import random

import pytest
import torch

from diffalign.evaluation import compbench_depth as scorer
from diffalign.evaluation.compbench_prompts import Pair
from diffalign.evaluation.judges import Detection

A = (0.0, 0.0, 100.0, 100.0)
RISING = torch.arange(40000.0).reshape(200, 200)  # nearer downwards and, less, to the right
FRAME = (torch.arange(479.0)[:, None] * 479 + torch.arange(479.0)) / 479**2
TURN = {"in front of": "behind", "behind": "in front of"}


def found(label: str, score: float, box) -> Detection:
    return Detection(label, score, tuple(map(float, box)))


def pair(relation: str) -> Pair:
    return Pair(("dog",), ("car",), relation)


@pytest.mark.parametrize(
    ("relation", "first", "second", "expected"),
    [
        ("behind", A, (20, 20, 120, 120), 0.9411764705882353),  # IoU 8/17 over one half; released
        ("in front of", A, (20, 20, 120, 120), 0),  # released
        ("behind", A, (60, 60, 160, 160), 0.17391304347826086),  # released
        ("hidden", (0, 0, 50, 50), (100, 100, 150, 150), 0),  # no overlap; released
        ("hidden", A, (10, 10, 110, 110), 1),  # IoU above one half
        ("in front of", (20, 20, 120, 120), A, 0.9411764705882353),
        ("in front of", A, A, 0),  # equally near
        ("next to", A, (20, 20, 120, 120), 0),  # no relation of depth
        ("behind", (0, 0, 100, 100), (0, 0, 100, 200), 0),  # an overlap of exactly one half
        ("behind", (0, 0, 100, 100), (300, 300, 301, 301), 0),  # outside the map there is no depth
        ("behind", (150, 0, 200, 50), (150, 20, 200, 70), 0.8571428571428571),  # IoU 3/7
        ("behind", (0, 150, 50, 200), (20, 150, 70, 200), 0.8571428571428571),
    ],
)
def test_position_of_known_boxes(relation, first, second, expected):
    assert scorer.depth_position(relation, first, second, RISING) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("relation", "detections", "expected"),
    [
        ("behind", [("dog", 0.9, A), ("car", 0.8, (60, 60, 160, 160))], 0.5119565217391304),
        ("in front of", [("car", 0.9, A), ("dog", 0.8, (60, 60, 160, 160))], 0.5119565217391304),
        ("hidden", [("dog", 0.9, A), ("car", 0.8, (100, 100, 160, 160))], 0.425),
        # the second dog replaces the first, and "carpet" is the car: .25 * (.7 + .6) + .5 * .9412
        (
            "behind",
            [
                ("dog", 0.9, A),
                ("dog", 0.7, (20, 20, 120, 120)),
                ("carpet", 0.6, (40, 40, 140, 140)),
                ("car", 0.55, (0, 0, 9, 9)),
            ],
            0.7955882352941176,
        ),
    ],
)  # fmt: skip
def test_released_scores_of_whole_images(relation, detections, expected):
    image = [found(*d) for d in detections]
    assert scorer.spatial_depth(image, pair(relation), FRAME) == pytest.approx(expected, abs=1e-9)


def test_one_object_keeps_its_quarter_and_none_gives_nothing():
    assert scorer.spatial_depth([found("dog", 0.8, A)], pair("behind"), FRAME) == pytest.approx(0.2)
    assert scorer.spatial_depth([found("cup", 0.8, A)], pair("behind"), FRAME) == 0
    assert scorer.spatial_depth([found("carpet", 0.8, A)], pair("behind"), FRAME) == pytest.approx(0.2)
    assert scorer.spatial_depth([found("carpet", 0.8, A)], pair("behind"), FRAME, strict=False) == 0


def test_mended_form_reads_rows_as_rows_and_counts_one_half():
    low = torch.zeros(200, 200)
    low[100:] = 1  # the lower half is near
    upper, lower = (0.0, 0.0, 200.0, 110.0), (0.0, 60.0, 200.0, 200.0)
    assert scorer.depth_position("behind", upper, lower, low, strict=False) == pytest.approx(0.5)
    assert scorer.depth_position("behind", (0, 0, 100, 100), (0, 0, 100, 200), low, strict=False) == 1
    columns = low.T.contiguous()
    assert scorer.depth_position("behind", upper, lower, columns) == pytest.approx(0.5)  # released: transposed


@pytest.mark.parametrize("strict", [True, False])
def test_depth_of_any_scale_gives_the_same_scores(strict):
    depth = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    image = [found("dog", 0.9, (5, 5, 40, 40)), found("car", 0.8, (20, 20, 60, 60))]
    values = [scorer.spatial_depth(image, pair("behind"), d, strict=strict) for d in (depth, 7 * depth - 3)]
    other = scorer.spatial_depth(image, pair("behind"), -depth, strict=strict)
    assert values[0] == pytest.approx(values[1], abs=1e-9)
    assert min(values[0], other) == pytest.approx(0.425) and max(values[0], other) > 0.5


def test_framed_depth_fills_the_unit_interval_in_steps_of_a_byte():
    depth = scorer.framed_depth(torch.rand(30, 30) * 50 + 9)
    assert depth.shape == (479, 479) and depth.min() >= 0 and depth.max() <= 1
    assert torch.equal((depth * 255).round() / 255, depth)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        scorer.framed_depth(torch.rand(3, 30, 30))
    flat = scorer.spatial_depth([found("dog", 0.8, (0, 0, 9, 9)), found("car", 0.8, (4, 4, 9, 9))], pair("behind"),
                                torch.ones(30, 30))  # fmt: skip
    assert flat == pytest.approx(0.4)  # a map of one value holds no relation


@pytest.mark.parametrize("strict", [True, False])
def test_exchanging_the_objects_turns_the_relation_round(strict):
    rng = random.Random(0)
    depth = torch.rand(90, 90, generator=torch.Generator().manual_seed(1))
    for _ in range(50):
        corners = [(rng.uniform(0, 50), rng.uniform(0, 50)) for _ in range(2)]
        first, second = (
            found(name, 0.9, (x, y, x + 35, y + 35)) for name, (x, y) in zip(("dog", "car"), corners, strict=True)
        )
        for relation, back in TURN.items():
            value = scorer.spatial_depth([first, second], Pair(("dog",), ("car",), relation), depth, strict=strict)
            turned = scorer.spatial_depth([first, second], Pair(("car",), ("dog",), back), depth, strict=strict)
            assert value == pytest.approx(turned, abs=1e-9)
