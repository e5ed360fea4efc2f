"""Compared outside the tree with calc_spatial_relation_acc.py and calc_size_comp_acc.py (HRS_benchmark, 4df908c).

6,000 and 5,898 scenes, no disagreement; prompts of four objects with two relations, on which the first stops with an
error, are left out.
"""

from __future__ import annotations

import random

import pytest

from diffalign.evaluation import hrs
from diffalign.evaluation.judges import Detection

PLACES = {"west": (0, 40, 10, 50), "east": (80, 40, 90, 50), "north": (40, 0, 50, 10), "south": (40, 80, 50, 90),
          "middle": (40, 40, 50, 50), "big": (20, 20, 70, 70)}  # fmt: skip
NAMES = ("dog", "cat", "car", "cup")


def image(*places: str) -> list[Detection]:
    """A dog, a cat, a car and a cup at these places."""
    boxes = (tuple(map(float, PLACES[place])) for place in places)
    return [Detection(name, 0.9, box) for name, box in zip(NAMES, boxes, strict=False)]


@pytest.mark.parametrize(
    ("places", "relations", "expected"),
    [
        (("east", "west"), ["on the right of"], True),
        (("west", "east"), ["on the right of"], False),
        (("west", "east"), ["on the left of"], True),
        (("north", "south"), ["above"], True),
        (("south", "north"), ["on"], False),
        (("south", "north"), ["beneath"], True),
        (("middle", "middle"), ["on the left of"], False),  # equal edges hold nothing
        (("big", "middle"), ["on the right of"], True),  # edges are compared, not centres
        (("big", "middle"), ["on the left of"], True),
        (("middle", "big"), ["above"], True),  # its lower edge is higher
        (("middle",), ["above"], False),  # the cat is missing
        (("west", "east"), ["beside"], False),  # unknown
        (("middle", "west", "east"), ["between"], True),
        (("middle", "north", "south"), ["in the middle of"], True),
        (("west", "middle", "east"), ["between"], False),
        (("middle", "west", "south"), ["on the right of", "above"], True),
        (("middle", "west", "north"), ["on the right of", "above"], False),
        (("middle", "middle", "west", "east"), ["among"], True),  # the dog and the cat between car and cup
        (("middle", "west", "west", "east"), ["among"], False),
        (("middle", "middle", "west", "east"), ["on the right of", "on the left of"], True),
        (("middle", "east", "west", "east"), ["on the right of", "on the left of"], False),
    ],
)
def test_spatial_verdicts_of_known_scenes(places, relations, expected):
    count = max(len(places), 2)
    for strict in (True, False):
        assert hrs.spatial(image(*places), NAMES[:count], relations, strict=strict) is expected


@pytest.mark.parametrize(
    ("places", "relations", "expected"),
    [
        (("big", "middle"), ["larger"], True),
        (("middle", "big"), ["bigger"], False),
        (("middle", "big"), ["smaller"], True),
        (("middle", "west"), ["larger"], False),  # equal
        (("middle", "west"), ["smaller"], False),
        (("big", "middle", "west"), ["larger", "bigger"], True),
        (("big", "middle", "big"), ["larger", "bigger"], False),
        (("middle", "big", "big"), ["smaller", "smaller"], True),
        (("big", "middle", "west", "east"), ["larger", "bigger"], True),
        (("middle", "big", "big", "west"), ["smaller", "larger"], False),
        (("big", "middle", "big", "east"), ["larger", "larger"], False),  # the first relation is to cat and car
        (("big", "middle"), ["equal"], False),
    ],
)
def test_size_verdicts_of_known_scenes(places, relations, expected):
    for strict in (True, False):
        assert hrs.size(image(*places), NAMES[: len(places)], relations, strict=strict) is expected


def test_quirks_of_the_released_form():
    doubtful = Detection("dog", 0.6, tuple(map(float, PLACES["west"])))
    two_dogs = [*image("east", "middle"), doubtful]
    assert not hrs.spatial(two_dogs, NAMES[:2], ["on the right of"])  # the last dog counts
    assert hrs.spatial(two_dogs, NAMES[:2], ["on the right of"], strict=False)  # the surest
    pair = [Detection("dog", s, tuple(map(float, PLACES[p]))) for s, p in ((0.9, "east"), (0.8, "west"))]
    assert not hrs.spatial(pair, ["dog", "dog"], ["on the right of"])  # one dog is both
    assert hrs.spatial(pair, ["dog", "dog"], ["on the right of"], strict=False)
    scene = image("middle", "west", "south")
    assert hrs.spatial(scene, NAMES[:3], ["beside", "above"])  # an unknown first relation holds
    assert not hrs.spatial(scene, NAMES[:3], ["beside", "above"], strict=False)


def test_flipping_a_scene_swaps_left_and_right():
    rng = random.Random(0)
    turned = {"on the right of": "on the left of", "on the left of": "on the right of", "above": "above"}
    seen = set()
    for _ in range(300):
        corners = [(rng.randint(0, 70), rng.randint(0, 70)) for _ in range(2)]
        scene = [Detection(n, 0.9, (x, y, x + 20.0, y + 20.0)) for n, (x, y) in zip(NAMES, corners, strict=False)]
        flipped = [Detection(d.label, 0.9, (90 - d.box[2], d.box[1], 90 - d.box[0], d.box[3])) for d in scene]
        for relation, other in turned.items():
            value = hrs.spatial(scene, NAMES[:2], [relation])
            assert value == hrs.spatial(flipped, NAMES[:2], [other])
            seen.add(value)
    assert seen == {True, False}


def test_a_composition_has_two_to_four_objects():
    with pytest.raises(ValueError, match="two to four"):
        hrs.spatial([], ["dog"], ["above"])
