from __future__ import annotations

import math
import random

import pytest

from diffalign.evaluation import compbench_attributes as scorer
from diffalign.evaluation.judges import ParsedPrompt, Word
from diffalign.evaluation.noun_chunks import parse


def chunks(*texts: str) -> ParsedPrompt:
    return ParsedPrompt((), texts)


@pytest.mark.parametrize(
    ("parsed", "released", "mended"),
    [
        (chunks("a red cup", "a blue bowl"), ["a red cup?", "a blue bowl?"], None),
        (chunks("a dog", "the left", "a car"), ["a dog?", "a car?"], None),
        (chunks("a dog", "the side", "a car"), ["a dog?", "a car?"], None),
        (chunks("a hat", "top", "the rack"), ["a hat?", "the rack?"], None),
        (chunks("a hat", "the top", "a rack"), ["a hat?", "the top?", "a rack?"], ["a hat?", "a rack?"]),
        (chunks("a dog", "front", "a car"), ["a dog?", "front?", "a car?"], ["a dog?", "a car?"]),
        (chunks("A cat", "it", "its tail"), ["A cat?", "it?", "its tail?"], ["A cat?", "its tail?"]),
        (chunks(*"zbcdefghij"), [f"{c}?" for c in "zbcdefgh"], [f"{c}?" for c in "zbcdefghj"]),  # "i" is a pronoun
    ],
)
def test_questions_of_known_chunks(parsed, released, mended):
    assert scorer.questions(parsed) == released
    assert scorer.questions(parsed, strict=False) == (mended or released)


@pytest.mark.parametrize(
    ("probabilities", "expected", "exact"),
    [
        ([0.9], 0.9, 0.9),
        ([0.880797, 0.5], 0.4404, 0.4403985),  # sigmoid of 2 and of 0
        ([0.5, 0.5, 0.5], 0.125, 0.125),
        ([1.0, 0.0], 0, 0),
        ([0.33333, 0.33333], 0.1111, 0.1111088889),
        ([0.00004, 1.0], 0, 0.00004),  # rounds to nothing
        ([1.0] * 8 + [0.5], 1, 0.5),  # the ninth question is not asked
    ],
)
def test_products_of_known_probabilities(probabilities, expected, exact):
    assert scorer.attribute(probabilities) == pytest.approx(expected, abs=1e-12)
    assert scorer.attribute(probabilities, strict=False) == pytest.approx(exact, abs=1e-9)


def test_no_question_and_no_probability_are_errors():
    with pytest.raises(ValueError, match="at least one question"):
        scorer.attribute([])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        scorer.attribute([0.5, 1.2])


def test_order_of_the_questions_does_not_matter_and_doubt_only_hurts():
    rng = random.Random(0)
    for _ in range(50):
        values = [rng.random() for _ in range(rng.randint(1, 8))]
        score = scorer.attribute(values, strict=False)
        assert score == pytest.approx(scorer.attribute(rng.sample(values, len(values)), strict=False))
        assert scorer.attribute([*values, rng.random()], strict=False) <= score
        assert abs(scorer.attribute(values) - score) <= 5e-5 * (len(values) + 1)


def test_blip_reads_the_question_without_marks():
    assert scorer.clean('A (red) cup: "new"; #1*~?') == "a red cup new 1?"


def test_clip_reads_the_complex_prompt_without_adjectives():
    parsed = ParsedPrompt((Word("The", "DET"), Word("red", "ADJ"), Word("hat", "NOUN"), Word(".", "PUNCT")), ())
    assert scorer.similarity_text("The red hat.", parsed) == "The hat ."
    assert scorer.similarity_text("The red hat.", parsed, strict=False) == "The red hat."
    assert scorer.similarity_text("The red hat.") == "The red hat."


@pytest.mark.parametrize(("kind", "expected"), [("spatial", 0.55), ("action", 0.6), ("both", 1.4 / 3)])
def test_three_in_one_averages_what_the_type_asks_for(kind, expected):
    assert scorer.three_in_one(kind, 0.9, 0.2, 0.3) == pytest.approx(expected)
    with pytest.raises(ValueError, match="unknown"):
        scorer.three_in_one("other", 0.9, 0.2, 0.3)


def test_questions_of_a_parsed_prompt():
    assert scorer.questions(parse("a horse on the left of a red car")) == ["a horse?", "a red car?"]
    assert math.isclose(scorer.attribute([0.5, 0.25]), 0.125)
