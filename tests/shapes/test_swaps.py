"""Wrong captions one word away: no scene of the line grants them, and the grammar knows them all."""

from __future__ import annotations

import pytest

from diffalign.evaluation import geneval
from diffalign.evaluation.geneval_prompts import TAGS, every_line
from diffalign.shapes import CLASSES, COLOURS, detect
from diffalign.shapes.swaps import KINDS, meaning
from diffalign.shapes.vocabulary import COUNTS

GRAMMAR = {line["prompt"]: line for line in every_line(CLASSES, tuple(COLOURS), COUNTS)}
FILLING = {"a", "an", "of"}
NUMBER = {  # tag -> how many swaps of each kind
    "single_object": {"noun": 6},
    "two_object": {"noun": 10},
    "counting": {"noun": 6, "count": 2},
    "colors": {"noun": 6, "colour": 7},
    "position": {"noun": 10, "relation": 3},
    "color_attr": {"noun": 10, "colour": 12, "exchange": 1},
}


def prompt(words: str) -> dict:
    return GRAMMAR[f"a photo of {words}"]


@pytest.mark.parametrize("tag", TAGS)
def test_every_swap_is_a_line_of_the_grammar_and_says_something_else(tag):
    for line in [line for line in GRAMMAR.values() if line["tag"] == tag][::7]:
        found = {kind: make(line) for kind, make in KINDS.items()}
        assert {kind: len(swaps) for kind, swaps in found.items() if swaps} == NUMBER[tag]
        swaps = [swap for part in found.values() for swap in part]
        assert all(GRAMMAR[swap["prompt"]] == swap for swap in swaps)
        assert meaning(line) not in {meaning(swap) for swap in swaps}


def test_a_swap_changes_one_word_and_an_exchange_none():
    for line in list(GRAMMAR.values())[::11]:
        words = [word for word in line["prompt"].split() if word not in FILLING]
        for kind, make in KINDS.items():
            for swap in make(line):
                other = [word for word in swap["prompt"].split() if word not in FILLING]
                if kind == "exchange":
                    assert sorted(other) == sorted(words) and other != words
                else:
                    assert sum(a != b for a, b in zip(words, other, strict=True)) == 1


def test_scenes_refute_every_swap_of_their_line(heldout):
    lines, _, images = heldout
    for line, found in list(zip(lines, detect(images), strict=True))[::5]:
        assert geneval.correct(found, line)
        assert not [swap["prompt"] for make in KINDS.values() for swap in make(line) if geneval.correct(found, swap)]


def test_word_order_does_not_change_what_a_line_says():
    same = [
        ("a ring above a heart", "a heart below a ring"),
        ("a ring left of a heart", "a heart right of a ring"),
        ("a ring and a heart", "a heart and a ring"),
        ("a red ring and a blue heart", "a blue heart and a red ring"),
    ]
    assert all(meaning(prompt(a)) == meaning(prompt(b)) for a, b in same)
    meanings = {meaning(prompt(words)) for pair in same for words in pair}
    others = ("a heart above a ring", "a ring left of a cross", "a blue ring and a red heart", "a ring", "two rings")
    assert len(meanings | {meaning(prompt(words)) for words in others}) == len(same) + len(others)
