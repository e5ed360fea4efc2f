"""Values marked released were printed by main() of UniDet_eval/2D_spatial_eval.py (1b709499) on these detections."""

from __future__ import annotations

import random

import pytest

from diffalign.evaluation import compbench_spatial as scorer
from diffalign.evaluation.compbench_prompts import FLAT_RELATIONS, Pair
from diffalign.evaluation.judges import Detection

SQUARE = (479, 479)
A = (0.0, 0.0, 100.0, 100.0)


def found(label: str, score: float, box) -> Detection:
    return Detection(label, score, tuple(map(float, box)))


def pair(relation: str, first: str = "dog", second: str = "car") -> Pair:
    return Pair((first,), (second,), relation)


@pytest.mark.parametrize(
    ("relation", "first", "second", "expected"),
    [
        ("next to", (0, 0, 10, 10), (100, 400, 110, 410), 1),  # 100 pixels apart in x is enough
        ("next to", (0, 0, 10, 10), (200, 300, 210, 310), 0.5),  # 150 over the larger offset, 300
        ("near", (0, 0, 10, 10), (150, 150, 160, 160), 1),  # exactly at the limit: 150 / 150
        ("near", (0, 0, 10, 10), (200, 200, 210, 210), 0.75),
        ("on side of", A, A, 1),  # no offset at all is near
        ("on the left of", A, (200, 0, 300, 100), 1),
        ("on the left of", A, (80, 0, 180, 100), 0.9),  # IoU 1/9, .1 over it
        ("on the left of", A, (50, 0, 150, 100), 0.3),  # IoU 1/3
        ("on the left of", A, (100, 100, 200, 200), 0),  # a diagonal has no dominant axis
        ("on the left of", (200, 0, 300, 100), A, 0),  # wrong side
        ("on the right of", (100, 0, 200, 100), (0, 20, 90, 110), 1),
        ("on the top of", A, (10, 150, 110, 250), 1),
        ("on the top of", A, (160, 150, 260, 250), 0),  # to the left rather than on top
        ("on the bottom of", (0, 60, 100, 160), A, 0.4),  # IoU 1/4
        ("on the bottom of", A, (0, 60, 100, 160), 0),
        ("on top of", A, (0, 150, 100, 250), 0),  # no rule in the released code
        (None, A, (0, 150, 100, 250), 0),
    ],
)
def test_position_of_known_boxes(relation, first, second, expected):
    assert scorer.flat_position(relation, first, second) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("relation", "detections", "expected"),
    [
        ("on the left of", [("dog", 0.9, A), ("car", 0.8, (200, 0, 300, 100))], 0.925),
        ("on the left of", [("dog", 0.9, A), ("car", 0.8, (50, 0, 150, 100))], 0.575),
        ("near", [("dog", 0.9, (0, 0, 10, 10)), ("car", 0.8, (200, 300, 210, 310))], 0.675),
        ("near", [("dog", 0.6, (0, 0, 10, 10)), ("car", 0.6, (400, 460, 410, 470))], 0),  # .463, below one half
        ("on the top of", [("dog", 1.0, (0, 0, 50, 50)), ("car", 1.0, (300, 0, 330, 30))], 0.5),  # both certain
        ("on the top of", [("dog", 0.99, (0, 0, 50, 50)), ("car", 1.0, (300, 0, 330, 30))], 0),
    ],
)
def test_released_scores_of_whole_images(relation, detections, expected):
    assert scorer.spatial([found(*d) for d in detections], pair(relation), SQUARE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("detections", "expected", "mended"),
    [
        ([], 0, 0),
        ([("dog", 0.9, A)], 0, 0.225),  # one object is below one half
        ([("cat", 0.9, A)], 0, 0),  # neither
        ([("dog", 0.5, A), ("car", 0.9, (200, 0, 300, 100))], 0, 0.225),  # .5 is not above the threshold
        # the first dog counts, though a later one is more certain: it stands on the wrong side
        ([("dog", 0.6, (300, 0, 400, 100)), ("dog", 0.9, A), ("car", 0.8, (200, 0, 300, 100))], 0, 0.925),
    ],
)
def test_missing_and_doubtful_objects(detections, expected, mended):
    image = [found(*d) for d in detections]
    assert scorer.spatial(image, pair("on the left of"), SQUARE) == pytest.approx(expected, abs=1e-12)
    assert scorer.spatial(image, pair("on the left of"), SQUARE, strict=False) == pytest.approx(mended, abs=1e-12)


def test_two_equal_objects_need_two_detections_when_mended():
    dogs = pair("next to", "dog", "dog")
    one = [found("dog", 0.8, A)]
    two = [*one, found("dog", 0.6, (150, 0, 250, 100))]
    assert scorer.spatial(one, dogs, SQUARE) == pytest.approx(0.9)  # one dog is next to itself
    assert scorer.spatial(one, dogs, SQUARE, strict=False) == pytest.approx(0.2)
    assert scorer.spatial(two, dogs, SQUARE, strict=False) == pytest.approx(0.2 + 0.15 + 0.5)
    left = pair("on the right of", "dog", "dog")
    assert scorer.spatial(two, left, SQUARE, strict=False) == pytest.approx(0.85)  # either may be the first


@pytest.mark.parametrize(
    ("size", "frame"),  # torchvision's Resize(479, max_size=480)
    [((512, 512), (479, 479)), ((32, 32), (479, 479)), ((1024, 768), (480, 360)), ((300, 700), (205, 480))],
)
def test_frame_of_the_released_detector(size, frame):
    assert scorer.frame_of(size) == frame


def test_distance_is_measured_in_the_frame_not_in_the_image():
    near = [found("dog", 0.9, (0, 0, 2, 2)), found("car", 0.9, (12, 12, 14, 14))]
    assert scorer.spatial(near, pair("near"), SQUARE) == pytest.approx(0.95)
    assert scorer.spatial(near, pair("near"), (32, 32)) == pytest.approx(0.45 + 0.5 * 150 / (12 / 32 * 479))


def scene(rng: random.Random) -> list[Detection]:
    out = []
    for label in ("dog", "car", "dog", "cup")[: rng.randint(0, 4)]:
        x, y = rng.uniform(0, 400), rng.uniform(0, 400)
        out.append(found(label, rng.uniform(0.4, 1), (x, y, x + rng.uniform(5, 79), y + rng.uniform(5, 79))))
    return sorted(out, key=lambda d: -d.score)


def flipped(image: list[Detection]) -> list[Detection]:
    return [found(d.label, d.score, (479 - d.box[2], d.box[1], 479 - d.box[0], d.box[3])) for d in image]


@pytest.mark.parametrize("strict", [True, False])
def test_flipping_an_image_swaps_left_and_right_and_nothing_else(strict):
    mirror = {"on the left of": "on the right of", "on the right of": "on the left of"}
    rng, seen = random.Random(0), set()
    for _ in range(500):
        image = scene(rng)
        for relation in FLAT_RELATIONS:
            value = scorer.spatial(image, pair(relation), SQUARE, strict=strict)
            other = scorer.spatial(flipped(image), pair(mirror.get(relation, relation)), SQUARE, strict=strict)
            assert value == pytest.approx(other, abs=1e-9) and 0 <= value <= 1
            seen.add(value > 0.5)
    assert seen == {True, False}


@pytest.mark.parametrize("strict", [True, False])
def test_exchanging_the_objects_turns_a_direction_round(strict):
    left, right, bottom, top = FLAT_RELATIONS[3:7]
    turned = {left: right, right: left, bottom: top, top: bottom}
    rng = random.Random(1)
    for _ in range(300):
        image = scene(rng)
        for relation, back in turned.items():
            value = scorer.spatial(image, pair(relation), SQUARE, strict=strict)
            assert value == scorer.spatial(image, pair(back, "car", "dog"), SQUARE, strict=strict)
