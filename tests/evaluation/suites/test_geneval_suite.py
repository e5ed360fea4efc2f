"""GenEval as a suite gives the scorer's verdicts, and asks for no colour that the rules do not need."""

from __future__ import annotations

import random

import pytest
import torch

from diffalign.evaluation import geneval, suites
from diffalign.evaluation import geneval_prompts as grammar
from diffalign.evaluation.judges import Detection, Judges

LINES = [
    grammar.single_object("dog"),
    grammar.two_object("dog", "cat"),
    grammar.counting("dog", 2),
    grammar.colors("dog", "red"),
    grammar.position("dog", "above", "cat"),
    grammar.color_attr("dog", "red", "cat", "blue"),
]


def scene(rng: random.Random) -> list[Detection]:
    out = []
    for _ in range(rng.randint(0, 6)):
        x, y = rng.uniform(0, 80), rng.uniform(0, 80)
        score = rng.choice([0.25, 0.5, 0.95]) + rng.random() / 100
        out.append(Detection(rng.choice(["dog", "cat"]), score, (x, y, x + 15, y + 15)))
    return out


def color_of(detection: Detection) -> str:
    return "red" if detection.box[0] < 40 else "blue"


@pytest.mark.parametrize("name", ["geneval", "geneval_soft"])
def test_verdicts_are_those_of_the_scorer(name):
    rng, rule = random.Random(0), {"geneval": geneval.correct, "geneval_soft": geneval.soft}[name]
    found = [scene(rng) for _ in range(120)]
    asked: list[int] = []

    def color(images, detections):
        assert len(images) == len(detections) and all(detections)
        asked.extend(map(len, detections))
        return [[color_of(d) for d in group] for group in detections]

    suite = suites.get(name)
    judges = suite.prepare(Judges(detect=lambda images, labels: [list(image) for image in found], color=color))
    values = set()
    for line in LINES:
        ready = suite.line(line["prompt"], line, judges)
        outcomes = suite.score(torch.zeros(120, 3, 8, 8), [ready] * 120, judges)
        expected = [float(rule(image, line, colour_fn=color_of)) for image in found]
        assert [outcome.score for outcome in outcomes] == expected
        values.update(expected)
    assert {0.0, 1.0} <= values and asked and max(asked) <= 2  # one dog, or one dog and one cat


def test_a_colour_that_nobody_names_is_an_error_and_only_where_it_matters():
    suite = suites.get("geneval")
    judges = Judges(detect=lambda images, labels: [[Detection("dog", 0.9, (0.0, 0.0, 9.0, 9.0))]])
    image = torch.zeros(1, 3, 8, 8)
    assert suite.score(image, [suite.line("a dog", LINES[0], judges)], judges)[0].score == 1
    with pytest.raises(ValueError, match="colour of 'dog'.*judge for color"):
        suite.score(image, [suite.line("a red dog", LINES[3], judges)], judges)


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ([{"class": "dog"}], r"include\[0\] needs a `count`"),
        ([{"count": 1}], r"include\[0\] needs a `class`"),
        ([{"class": "dog", "count": 0}], "at least 1, got 0"),
        ([{"class": "dog", "count": 1, "position": ["beside", 0]}], "is \\[relation, index of an earlier clause\\]"),
        ([{"class": "dog", "count": 1, "position": ["above", 0]}], "is \\[relation, index of an earlier clause\\]"),
    ],
)
def test_broken_clauses_are_named(include, said):
    with pytest.raises(ValueError, match=said):
        suites.get("geneval").line("p", {"tag": "position", "include": include}, Judges())
