from __future__ import annotations

import random

import pytest

from diffalign.evaluation import geneval
from diffalign.evaluation.geneval import Detection
from diffalign.evaluation.geneval_graded import graded

LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
PAIR = {
    "tag": "position",
    "include": [
        {"class": "ring", "count": 1},
        {"class": "heart", "count": 1, "position": ["left of", 0]},
    ],
}
RED = {"tag": "colors", "include": [{"class": "ring", "count": 1, "color": "red"}]}
THREE = {"tag": "counting", "include": [{"class": "ring", "count": 3}], "exclude": [{"class": "ring", "count": 4}]}


def ring(score: float = 1.0, color: str = "red", box=RIGHT) -> Detection:
    return Detection("ring", score, box, color)


def heart(score: float = 1.0, box=LEFT) -> Detection:
    return Detection("heart", score, box, "blue")


def test_one_for_exactly_what_was_asked_and_zero_for_nothing() -> None:
    assert graded([ring(), heart()], PAIR) == graded([ring()], RED) == graded([ring()] * 3, THREE) == 1
    for line in (PAIR, RED, THREE):
        assert graded([], line) == graded([heart(0.0)], line) == 0


def test_by_hand() -> None:
    assert graded([ring(0.8)], RED) == pytest.approx(0.8)
    assert graded([ring(1, "blue")], RED) == pytest.approx(0.5)
    assert graded([ring(), ring(0.4)], THREE) == pytest.approx(1.4 / 3)
    assert graded([ring(0.6), heart(0.9)], PAIR) == pytest.approx((0.6 + 0.9 + 0.6) / 3)
    assert graded([ring(box=LEFT), heart(box=RIGHT)], PAIR) == pytest.approx(2 / 3)  # the wrong way round
    assert graded([heart()], PAIR) == pytest.approx(1 / 3)  # no ring to stand left of


def test_what_nobody_asked_for_costs_its_share() -> None:
    assert graded([ring(), heart()], RED) == pytest.approx(1 / 2)
    assert graded([ring()] * 4, THREE) == pytest.approx(3 / 4)
    assert graded([ring(), heart(), heart()], PAIR) == pytest.approx(2 / 3)
    assert graded([ring(), heart(0.3)], RED) == 1, "below GenEval's own threshold nothing is drawn"


def test_a_full_score_is_correct_and_every_score_lies_between_zero_and_one() -> None:
    rng = random.Random(0)
    full = 0
    for _ in range(3000):
        line = rng.choice([PAIR, RED, THREE])
        found = [
            Detection(rng.choice(["ring", "heart"]), rng.choice([0.2, 0.7, 1.0]), rng.choice([LEFT, RIGHT]),
                      rng.choice(["red", "blue"])) for _ in range(rng.randrange(4))
        ]  # fmt: skip
        score = graded(found, line)
        assert 0 <= score <= 1
        if score == 1:
            full += 1
            assert geneval.correct(found, line)
    assert full > 20


def test_more_confidence_never_costs() -> None:
    scores = [graded([ring(s / 10), heart(0.5)], PAIR) for s in range(4, 11)]
    assert all(b > a for a, b in zip(scores, scores[1:], strict=False))


def test_a_line_without_include_is_refused() -> None:
    with pytest.raises(ValueError, match="include clauses"):
        graded([ring()], {"tag": "colors"})
