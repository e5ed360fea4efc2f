from __future__ import annotations

import pytest

from diffalign.evaluation.compbench_prompts import (
    COMPLEX_RELATIONS,
    DEPTH_RELATIONS,
    FLAT_RELATIONS,
    Pair,
    as_released,
    complex_kind,
    find_relation,
    labels_of,
    read_complex_pair,
    read_pair,
)
from diffalign.evaluation.judges import ParsedPrompt, Word
from diffalign.evaluation.noun_chunks import parse
from tests.evaluation.benchmark_data import compbench

# Types of complex_val.txt by complex_val_spatial.txt and complex_val_action.txt (1b709499), run by run.
RELEASED_KINDS = (
    "s2 a2 s1 a1 s1 a1 s2 a1 s4 a1 s7 a1 s1 a1 s4 a1 s11 a1 s4 a1 s1 a3 s2 a1 s11 a1 s3 a1 s4 a4 b1 a5 b5 a10 b1 "
    "a1 b1 a2 b1 a1 b1 a6 b4 a3 b1 a4 b1 a7 b2 a3 b1 a5 b1 a1 b2 a3 b1 a6 b1 a9 b1 a16 b1 a4 b1 a3 b1 a12 b1 a16 "
    "b1 a74"
)


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


def words(text: str) -> ParsedPrompt:
    """ "dog/NOUN near/ADP" """
    return ParsedPrompt(tuple(Word(*one.split("/")) for one in text.split()), ())


@pytest.mark.parametrize(
    ("text", "released", "mended"),
    [
        ("hat/NOUN was/AUX on/ADP top/NOUN of/ADP coat/NOUN rack/NOUN", ("hat", "coat"), ("hat", "coat rack")),
        ("Rex/PROPN sat/VERB next/ADV to/ADP it/PRON", None, None),  # nothing after
        ("Rex/PROPN sat/VERB near/ADP Ann/PROPN Lee/PROPN now/ADV", ("Rex", "Lee"), ("Rex", "Ann Lee")),
        ("near/ADP the/DET dog/NOUN", None, None),  # nothing before
        ("cat/NOUN near/ADP dog/NOUN next/ADV to/ADP pig/NOUN", None, ("cat", "dog")),  # four objects in all
        ("cat/NOUN on/ADP the/DET left/NOUN of/ADP dog/NOUN", ("cat", "dog"), ("cat", "dog")),
        ("cat/NOUN under/ADP dog/NOUN", None, None),  # no phrase of the list
    ],
)
def test_objects_around_a_relation(text, released, mended):
    parsed = words(text)
    prompt = " ".join(word.text for word in parsed.words)
    for expected, strict in ((released, True), (mended, False)):
        found = read_complex_pair(prompt, parsed, strict=strict)
        assert (found and (found.first[0], found.second[0])) == expected


def test_released_prompt_ends_at_an_underscore():
    assert as_released("a dog_1 near a car") == "a dog"
    assert labels_of("woman") == ("person",) and labels_of("old woman", strict=False) == (
        "old woman",
        "woman",
        "person",
    )


def test_type_of_every_complex_prompt_is_the_released_one():
    names = {"s": "spatial", "a": "action", "b": "both"}
    expected = [names[run[0]] for run in RELEASED_KINDS.split() for _ in range(int(run[1:]))]
    prompts = compbench("complex")
    assert [complex_kind(prompt) for prompt in prompts] == expected
    related = [p.lower() for p, kind in zip(prompts, expected, strict=True) if kind != "action"]
    assert len(related) == 88 and all(any(r in p for r in (*COMPLEX_RELATIONS, "below")) for p in related)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("The red hat was on top of the brown coat rack.", "spatial"),
        ("The black phone was resting on the brown charger.", "action"),
        ("The black cat was resting next to the brown dog.", "both"),
        ("The crisp apple lay beside the rough stone.", "action"),
    ],
)
def test_type_of_known_prompts(prompt, kind):
    assert complex_kind(prompt) == kind
