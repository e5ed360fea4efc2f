"""Values marked released were printed by main() of UniDet_eval/numeracy_eval.py (1b709499) on these detections."""

from __future__ import annotations

import random

import pytest

from diffalign.evaluation import compbench_numeracy as scorer
from diffalign.evaluation.compbench_counts import Counted
from diffalign.evaluation.judges import Detection

SQUARE = (479, 479)


def row(label: str, number: int, y: float = 0, score: float = 0.9) -> list[Detection]:
    return [Detection(label, score, (60.0 * i, y, 60.0 * i + 40, y + 40)) for i in range(number)]


APPLES_AND_DOGS = [Counted("apple", 3), Counted("dog", 2)]


@pytest.mark.parametrize(
    ("detections", "wanted", "expected"),
    [
        (row("apple", 3) + row("dog", 2, 100), APPLES_AND_DOGS, 1),
        (row("apple", 3) + row("dog", 1, 100), APPLES_AND_DOGS, 0.75),  # released: dogs are there, but one
        (row("apple", 3) + row("dog", 3, 100), APPLES_AND_DOGS, 0.75),  # too many is as wrong as too few
        (row("apple", 3), APPLES_AND_DOGS, 0.5),
        (row("apple", 1), APPLES_AND_DOGS, 0.25),
        ([], APPLES_AND_DOGS, 0),
        (row("cup", 5), APPLES_AND_DOGS, 0),
        (row("apple", 3) + row("dog", 2, 100) + row("cup", 4, 200), APPLES_AND_DOGS, 1),  # others do not matter
        (row("apple", 3) + row("dog", 2, 100, 0.5), APPLES_AND_DOGS, 0.5),  # .5 is not above the threshold
        # released: cars are there by their own label, so the carpet is none; the teddy bear becomes a bear
        (
            row("car", 1) + row("carpet", 1, 100) + row("teddy bear", 1, 200),
            [Counted("car", 2), Counted("bear", 1)],
            0.75,
        ),
        (row("carpet", 1) + row("teddy bear", 1, 200), [Counted("car", 1), Counted("bear", 1)], 1),  # here it is
        (row("tv", 1), [Counted("television", 1)], 0),  # released: the alias is misspelt
        (row("dog", 2), [Counted("dog", None)], 0.5),  # a number that the released code loses is never met
    ],
)
def test_scores_of_known_images(detections, wanted, expected):
    assert scorer.numeracy(detections, wanted, SQUARE) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("other", "expected", "mended"),
    [
        ((0, 0, 99, 99), True, True),  # itself
        ((10, 10, 19, 19), True, False),  # inside: 100 of 100 pixels
        ((0, 0, 99, 90), True, True),  # 91 rows of 100
        ((0, 0, 99, 89), True, False),  # all of it lies inside, though exactly nine tenths of the larger
        ((8, 0, 107, 99), True, False),  # .92 of both sides, IoU .85
        ((12, 0, 111, 99), False, False),
        ((200, 200, 299, 299), False, False),
    ],
)
def test_duplicates_of_a_box(other, expected, mended):
    box = (0.0, 0.0, 99.0, 99.0)
    assert scorer.is_duplicate(box, other) == scorer.is_duplicate(other, box) == expected
    assert scorer.is_duplicate(box, other, strict=False) == mended


def test_only_boxes_of_one_label_are_duplicates_and_the_first_stays():
    box = (0.0, 0.0, 99.0, 99.0)
    first, second, cup = Detection("boat", 0.9, box), Detection("boat", 0.8, box), Detection("cup", 0.7, box)
    assert scorer.distinct([first, second, cup]) == [first, cup]
    inside = [
        first,
        Detection("boat", 0.8, (10.0, 10.0, 19.0, 19.0)),
        Detection("boat", 0.7, (200.0, 0.0, 299.0, 99.0)),
    ]
    assert scorer.numeracy(inside, [Counted("boat", 2)], SQUARE) == 1  # released
    assert scorer.numeracy(inside, [Counted("boat", 3)], SQUARE, strict=False) == 1


@pytest.mark.parametrize("strict", [True, False])
def test_a_confident_wrong_box_can_only_hurt(strict):
    rng = random.Random(0)
    exact = row("apple", 3) + row("dog", 2, 100)
    assert scorer.numeracy(exact, APPLES_AND_DOGS, SQUARE, strict=strict) == 1
    worse = set()
    for _ in range(200):
        x, y = rng.uniform(0, 400), rng.uniform(250, 400)
        extra = Detection(rng.choice(["apple", "dog", "cup", "teddy bear"]), 0.99, (x, y, x + 30, y + 30))
        image = rng.sample([*exact, extra], 6)
        value = scorer.numeracy(image, APPLES_AND_DOGS, SQUARE, strict=strict)
        assert value <= 1 and (value == 1) == (extra.label in ("cup", "teddy bear"))
        worse.add(value)
    assert worse == {0.75, 1}


def test_mended_form_takes_the_last_word_of_a_label():
    image = row("carpet", 1) + row("teddy bear", 1, 100)
    wanted = [Counted("car", 1), Counted("bear", 1)]
    assert scorer.numeracy(image, wanted, SQUARE, strict=False) == 0.5


def test_nothing_to_count_is_an_error():
    with pytest.raises(ValueError, match="at least one counted object"):
        scorer.numeracy([], [], SQUARE)
