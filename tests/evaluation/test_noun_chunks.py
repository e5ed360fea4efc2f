"""Chunks are those of spaCy's en_core_web_sm 3.8.0; agreement over all prompts is in docs/suites/compbench.md."""

from __future__ import annotations

import re

import pytest

from diffalign.evaluation.compbench_prompts import object_names
from diffalign.evaluation.noun_chunks import classify, parse
from tests.evaluation.benchmark_data import compbench, geneval


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        ("a horse on the left of a car", ["a horse", "the left", "a car"]),
        ("a butterfly on side of a cup", ["a butterfly", "side", "a cup"]),
        ("a giraffe next to a lamp", ["a giraffe", "a lamp"]),
        ("a dog in front of a desk", ["a dog", "front", "a desk"]),
        ("a wallet hidden by a butterfly", ["a wallet", "a butterfly"]),
        ("a green bench and a blue bowl", ["a green bench", "a blue bowl"]),
        ("a red orange and a brown sheep", ["a red orange", "a brown sheep"]),
        (
            "a pentagonal stop sign and a spherical traffic light",
            ["a pentagonal stop sign", "a spherical traffic light"],
        ),
        ("rubber sole shoes and fluffy clouds", ["rubber sole shoes", "fluffy clouds"]),
        ("a metallic desk lamp and a fluffy sweater", ["a metallic desk lamp", "a fluffy sweater"]),
        ("four tents, two boats and one pig", ["four tents", "two boats", "one pig"]),
        ("six girls", ["six girls"]),
        ("a photo of a bench", ["a photo", "a bench"]),
        ("a photo of two dogs", ["a photo", "two dogs"]),
        ("The red hat was on top of the brown coat rack.", ["The red hat", "top", "the brown coat rack"]),
        ("The black phone was resting on the brown charger.", ["The black phone", "the brown charger"]),
        ("A cat is lazily lounging in a sunny windowsill.", ["A cat", "a sunny windowsill"]),
        ("A woman is holding a yoga mat and heading to a class.", ["A woman", "a yoga mat", "a class"]),
        ("a tan, clean bathroom", ["a tan, clean bathroom"]),
        ("black and white checkered flooring", ["black and white checkered flooring"]),
        ("The smooth, white marble columns", ["The smooth, white marble columns"]),
        ("", []),
    ],
)
def test_chunks_are_those_of_spacy(prompt, chunks):
    assert list(parse(prompt).chunks) == chunks


def test_words_are_the_prompt_and_chunks_lie_in_it():
    for prompt in ("A dog's red ball, 11:44.", "The reedy, rust-colored grass swayed", "two_dogs on 3 mats!"):
        parsed = parse(prompt)
        assert "".join(word.text for word in parsed.words) == prompt.replace(" ", "")
        assert all(chunk in prompt for chunk in parsed.chunks)


def test_a_word_has_its_class_by_its_place():
    assert classify("a round round".split()) == ["DET", "ADJ", "NOUN"]
    assert classify("the ball was covered".split())[-1] == "VERB"
    assert classify("a covered ball".split()) == ["DET", "ADJ", "NOUN"]


@pytest.mark.parametrize("category", ["spatial", "3d_spatial"])
def test_first_and_last_noun_of_every_spatial_prompt_are_its_objects(category):
    for prompt in compbench(category):
        objects = re.fullmatch(r"an? ([\w ]+?) (?:on|next|near|in front|behind|hidden)\b.* an? ([\w ]+)", prompt)
        names = object_names(parse(prompt))
        assert objects and (names[0], names[-1]) == objects.groups(), prompt


def test_every_class_of_a_geneval_prompt_is_a_name_in_it():
    for line in geneval():
        names = " | ".join(object_names(parse(line["prompt"])))
        missing = [c["class"] for c in line["include"] if c["class"].split()[-1] not in names]
        assert not missing, (line["prompt"], names)
