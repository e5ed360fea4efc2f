from __future__ import annotations

import pytest

from diffalign.evaluation.compbench_counts import NUMBERS, OBJECTS, plural, read_counts, singular
from diffalign.evaluation.noun_chunks import parse


def counts(prompt: str, *, strict: bool = True) -> list[tuple[str, int | None]]:
    return [tuple(one) for one in read_counts(prompt, parse(prompt), strict=strict)]


@pytest.mark.parametrize(
    ("prompt", "released", "mended"),
    [
        ("two dogs", [("dog", 2)], None),
        ("one turtle", [("turtle", 1)], None),
        ("a bird and eight candles", [("bird", 1), ("candle", 8)], None),
        ("four tents, two boats and one pig", [("tent", 4), ("boat", 2), ("pig", 1)], None),
        ("six fish swam in the aquarium", [("fish", 6)], None),
        ("two women and three mice", [("person", 2), ("mouse", 3)], None),
        ("a ship and a goldfish", [("boat", 1), ("fish", 1)], None),
        ("six people gathered for a picnic", [("person", 6)], None),  # no picnic on the list, none is counted mended
        ("one television", [("television", 1)], [("tv", 1)]),
        ("two red cars and one dog", [("dog", 1)], [("car", 2), ("dog", 1)]),  # the object must follow at once
        ("Two dogs and one cat", [("cat", 1)], [("dog", 2), ("cat", 1)]),
        ("nine dogs and one cat", [("cat", 1)], [("dog", 9), ("cat", 1)]),
        ("three traffic lights and one cat", [("cat", 1)], [("traffic light", 3), ("cat", 1)]),
        ("a dogs, two cats and one pig", [("dog", 2), ("cat", 1), ("pig", None)], [("dog", 1), ("cat", 2), ("pig", 1)]),
    ],
)
def test_counted_objects_of_known_prompts(prompt, released, mended):
    assert counts(prompt) == released
    assert counts(prompt, strict=False) == (mended or released)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("two dog", "stands before the singular 'dog'"),
        ("dogs are more than one", "is the last word"),
        ("dogs on a lawn", "counts no object of the released list"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(prompt, said):
    with pytest.raises(ValueError, match=said):
        counts(prompt)


def test_every_object_is_read_in_both_numbers():
    for name in OBJECTS:
        assert singular(plural(name)) == name
        for number, word in enumerate(NUMBERS[1:], 2):
            (found,) = read_counts("", parse(f"{word} {plural(name)}"), strict=False)
            assert found.number == number


def test_plurals_that_are_not_regular():
    known = "knives men women people mice strawberries butterflies tomatoes sheep deer peaches couches"
    assert [plural(singular(word)) for word in known.split()] == known.split()
    assert [singular(word) for word in ("glasses", "boxes", "glass", "wolves")] == ["glass", "box", "glass", "wolf"]
