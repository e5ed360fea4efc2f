from __future__ import annotations

import math
import random

import pytest
import torch

from diffalign.evaluation import geneval
from diffalign.evaluation import geneval_prompts as grammar
from diffalign.evaluation.geneval import Detection

A = (0.0, 0.0, 100.0, 100.0)


def found(label: str, score: float = 0.95, box=A, color: str | None = None) -> Detection:
    return Detection(label, score, box, color)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ((200, 0, 300, 100), {"left of"}),
        ((15, 0, 115, 100), set()),
        ((150, 150, 250, 250), {"left of", "above"}),
        ((40, 0, 140, 100), set()),
        ((41, 0, 141, 100), {"left of"}),
    ],
)
def test_relations_of_known_boxes(target, expected):
    assert geneval.relations(A, target) == expected


def test_offsets_of_known_boxes():
    assert geneval.offset(A, (200, 0, 300, 100)) == pytest.approx((-0.9, 0.0), abs=1e-9)
    assert geneval.offset(A, (150, 150, 250, 250)) == pytest.approx((-0.612826, -0.612826), abs=1e-6)
    assert geneval.offset(A, (15, 0, 115, 100)) == (0.0, 0.0)


def test_relations_mirror_when_the_boxes_change_places():
    mirror = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    rng = random.Random(0)
    for _ in range(200):
        boxes = []
        for _ in range(2):
            x, y, w, h = (rng.uniform(1, 50) for _ in range(4))
            boxes.append((x, y, x + w, y + h))
        forward, back = geneval.relations(*boxes), geneval.relations(*boxes[::-1])
        assert {mirror[r] for r in forward} == back
        assert all(math.hypot(*geneval.offset(*pair)) <= 1 + 1e-12 for pair in (boxes, boxes[::-1]))


def test_counting_is_exact_at_confidence_point_nine():
    line = grammar.counting("dog", 2)
    dogs = [found("dog", 0.95)] * 2
    assert geneval.correct(dogs, line)
    assert not geneval.correct([*dogs, found("dog", 0.91)], line)
    assert geneval.correct([*dogs, found("dog", 0.89)], line)
    assert not geneval.correct([found("dog", 0.95), found("dog", 0.9)], line)


def test_other_tasks_count_at_least_and_keep_above_point_three():
    line = grammar.two_object("dog", "cat")
    assert geneval.correct([found("dog")] * 3 + [found("cat", 0.31)], line)
    assert not geneval.correct([found("dog"), found("cat", 0.3)], line)
    assert geneval.explain([found("dog")], line) == ["expected cat>=1, found 0"]


@pytest.mark.parametrize(("tag", "threshold"), [("two_object", 0.3), ("counting", 0.9)])
def test_thresholds_are_compared_in_float32_as_the_released_detector_gives_scores(tag, threshold):
    limit = torch.tensor(threshold, dtype=torch.float32)
    at, above = float(limit), float(torch.nextafter(limit, torch.tensor(1.0)))
    line = {"tag": tag, "include": [{"class": "dog", "count": 1}]}
    assert geneval.correct([found("dog", above)], line)
    assert not geneval.correct([found("dog", at)], line)


def test_of_equal_confidences_the_last_leads():
    """`np.argsort(...)[::-1]`, by hand: indices 0 1 2 of equal scores come out as 2 1 0."""
    line = {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]}
    pair = [found("dog", color="blue"), found("dog", color="red")]
    assert geneval.correct(pair, line) and not geneval.correct(pair[::-1], line)
    assert geneval.keep([found("dog", color=c) for c in "abc"], line)["dog"][0].color == "c"


def test_at_most_sixteen_of_a_class_are_kept_best_first():
    kept = geneval.keep([found("dog", 0.5 + i / 100) for i in range(20)], grammar.single_object("dog"))["dog"]
    assert len(kept) == 16
    assert [d.score for d in kept] == sorted((0.5 + i / 100 for i in range(20)), reverse=True)[:16]


def test_overlapping_boxes_are_not_suppressed():
    line = grammar.counting("dog", 3)
    assert geneval.correct([found("dog")] * 3, line)


def test_only_the_most_confident_objects_are_asked_for_their_colour():
    line = grammar.colors("dog", "red")
    red, blue = found("dog", 0.8, color="red"), found("dog", 0.9, color="blue")
    assert not geneval.correct([red, blue], line)
    assert geneval.correct([red, found("dog", 0.7, color="blue")], line)
    assert geneval.correct([blue], line, colour_fn=lambda detection: "red")


def test_position_asks_every_kept_target_and_fails_with_it():
    line = grammar.position("dog", "left of", "cat")
    dog, cat = found("dog"), found("cat", box=(200.0, 0.0, 300.0, 100.0))
    assert geneval.correct([dog, cat], line)
    assert not geneval.correct([found("dog", box=cat.box), found("cat")], line)
    reasons = geneval.explain([dog], line)
    assert len(reasons) == 2 and "no target" in reasons[1]


def test_exclude_clause_fails_from_its_count_on():
    line = {"tag": "two_object", "include": [], "exclude": [{"class": "dog", "count": 2}]}
    assert geneval.correct([found("dog")], line)
    assert not geneval.correct([found("dog")] * 2, line)


def test_overall_is_the_mean_of_tasks_not_of_prompts():
    lines = [grammar.single_object("dog")] * 9 + [grammar.colors("dog", "red")]
    result = geneval.summary(lines, [True] * 9 + [False])
    assert result["overall"] == 0.5 and result["image_accuracy"] == 0.9
    assert result["prompt_accuracy"] == 0.5 and result["images"] == 10
    with pytest.raises(ValueError, match="one of each"):
        geneval.summary(lines, [True])


def test_crowds_are_unbounded_below_in_the_reference_and_clipped_in_ours():
    crowd = [found("dog")] * 10
    line = grammar.single_object("dog")
    assert geneval.soft_reference(crowd, line) == -8
    exact = {"tag": "counting", "include": [{"class": "dog", "count": 1}], "exclude": [{"class": "dog", "count": 2}]}
    assert geneval.soft(crowd, exact) == 0.5  # the include credit stands, the exclude credit is 0
    assert geneval.soft(crowd, {"tag": "counting", "include": [], "exclude": exact["exclude"]}) == 0


def test_reference_appends_both_zero_and_one_for_a_failed_position():
    line = grammar.position("dog", "left of", "cat")
    right, wrong = found("cat", box=(200.0, 0.0, 300.0, 100.0)), found("cat", box=A)
    dog = found("dog", box=A)
    assert geneval.soft_reference([dog, right], line) == 1
    assert geneval.soft_reference([dog, wrong], line) == pytest.approx(3 / 4)  # counts 1, 1, then 0 and 1
    assert geneval.soft_reference([dog], line) == pytest.approx(1 / 3)  # counts 0, 1, then 0
    assert geneval.soft_reference([right], line) == pytest.approx(1 / 3)


def test_reference_strict_wants_equality_where_the_benchmark_wants_at_least():
    line = grammar.two_object("dog", "cat")
    image = [found("dog")] * 3 + [found("cat")]
    assert geneval.correct(image, line) and not geneval.score_strict(image, line)
    assert geneval.score_strict([found("dog"), found("cat")], line)
    assert not geneval.score_strict([found("dog", color="red")], grammar.colors("dog", "blue"))


LINES = [
    grammar.single_object("dog"),
    grammar.two_object("dog", "cat"),
    grammar.counting("dog", 2),
    grammar.counting("cat", 4),
    grammar.colors("dog", "red"),
    grammar.position("dog", "above", "cat"),
    grammar.color_attr("dog", "red", "cat", "blue"),
]


def random_image(rng: random.Random) -> list[Detection]:
    out = []
    for _ in range(rng.randint(0, 7)):
        x, y = rng.uniform(0, 80), rng.uniform(0, 80)
        score = rng.choice([0.25, 0.5, 0.95, 0.97]) + rng.random() / 100  # no ties: their order would be the caller's
        out.append(found(rng.choice(["dog", "cat"]), score, (x, y, x + 15, y + 15), rng.choice(["red", "blue", None])))
    return out


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["prompt"].removeprefix("a photo of "))
def test_soft_is_one_exactly_when_correct_and_always_within_bounds(line):
    rng, both = random.Random(1), set()
    for _ in range(2000):
        image = random_image(rng)
        value, verdict = geneval.soft(image, line), geneval.correct(image, line)
        assert 0 <= value <= 1
        assert (value == 1) == verdict
        both.add(verdict)
    assert both == {True, False}


def test_soft_rises_with_each_thing_put_right():
    line = grammar.color_attr("dog", "red", "cat", "blue")
    steps = [[], [found("dog")], [found("dog", color="red")], [found("dog", color="red"), found("cat")]]
    values = [geneval.soft(image, line) for image in steps]
    assert values == [0, 0.25, 0.5, 0.75]
    counts = [geneval.soft([found("dog")] * n, grammar.counting("dog", 3)) for n in range(7)]
    assert counts[:4] == sorted(counts[:4]) and counts[3] == 1 and counts[3:] == sorted(counts[3:], reverse=True)


def test_order_of_detections_does_not_matter():
    rng = random.Random(2)
    for _ in range(100):
        image = random_image(rng)
        shuffled = rng.sample(image, len(image))
        for line in LINES:
            assert geneval.soft(image, line) == geneval.soft(shuffled, line)
