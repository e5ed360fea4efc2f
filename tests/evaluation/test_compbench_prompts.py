from __future__ import annotations

import pytest

from diffalign.evaluation.compbench_prompts import (
    DEPTH_RELATIONS,
    FLAT_RELATIONS,
    Pair,
    as_released,
    find_relation,
    labels_of,
    read_pair,
)
from diffalign.evaluation.noun_chunks import parse


def pair(prompt: str, relations=FLAT_RELATIONS, *, strict: bool = True) -> Pair:
    return read_pair(prompt, parse(prompt), relations, strict=strict)


@pytest.mark.parametrize(
    ("prompt", "released", "mended"),
    [
        ("a dog on the left of a car", "on the left of", "on the left of"),
        ("a dog to the left of a car", None, "on the left of"),
        ("a dog on the right side of a car", None, "on the right of"),
        ("a dog on top of a car", "on top of", "on the top of"),
        ("a dog on the top of a car", "on the top of", "on the top of"),
        ("a dog under a car", None, "on the bottom of"),
        ("a dog above a car", None, "on the top of"),
        ("a dog next to a car near a tree", "next to", "next to"),
        ("a linear dog on the left of a car", "near", "on the left of"),  # "near" inside a word
        ("a dog on side of a car", "on side of", "on side of"),
        ("a dog behind a car", None, None),  # of the other category
        ("a dog and a car", None, None),
    ],
)
def test_relations_of_known_prompts(prompt, released, mended):
    assert find_relation(prompt, FLAT_RELATIONS) == released
    assert find_relation(prompt, FLAT_RELATIONS, strict=False) == mended


def test_depth_relations_are_found_in_both_forms():
    for strict in (True, False):
        found = [
            find_relation(f"a dog {r} a car", DEPTH_RELATIONS, strict=strict) for r in (*DEPTH_RELATIONS, "hidden by")
        ]
        assert found == [*DEPTH_RELATIONS, "hidden"]


@pytest.mark.parametrize(
    ("prompt", "released", "mended"),
    [
        ("a dog on the left of a car", (("dog",), ("car",)), (("dog",), ("car",))),
        ("a girl near a cup", (("person",), ("cup",)), (("girl", "person"), ("cup",))),
        ("a traffic light near a dog", (("traffic",), ("dog",)), (("traffic light", "light"), ("dog",))),
        ("a dog near a traffic light", (("dog",), ("light",)), (("dog",), ("traffic light", "light"))),
        ("a dog near", (("dog",), ("dog",)), (("dog",), ("dog",))),  # one noun is both objects
        ("a dog is on the left", (("dog",), ("left",)), (("dog",), ("dog",))),
    ],
)
def test_objects_of_known_prompts(prompt, released, mended):
    assert pair(prompt)[:2] == released
    assert pair(prompt, strict=False)[:2] == mended


def test_a_prompt_without_a_noun_is_refused_by_name():
    with pytest.raises(ValueError, match="'slowly' names no object"):
        pair("slowly")


def test_released_prompt_ends_at_an_underscore():
    assert as_released("a dog_1 near a car") == "a dog"
    assert labels_of("woman") == ("person",) and labels_of("old woman", strict=False) == (
        "old woman",
        "woman",
        "person",
    )
