from __future__ import annotations

from collections import Counter

import pytest

from diffalign.evaluation.geneval_prompts import TAGS
from diffalign.shapes import CLASSES, COLOURS, prompts


def combinations(line: dict) -> set:
    clauses = line["include"]
    out: set = {("color", c["class"], c["color"]) for c in clauses if "color" in c}
    out |= {("count", c["class"], c["count"]) for c in clauses if c["count"] > 1}
    if len(clauses) == 2:
        out.add(("pair", frozenset(c["class"] for c in clauses)))
        out |= {("relation", c["class"], *c["position"]) for c in clauses[1:] if "position" in c}
    return out


def test_held_out_combinations_never_occur_in_training():
    train = set().union(*(combinations(line) for line in prompts("train")))
    for line in prompts("heldout"):
        if line["tag"] == "single_object":
            continue
        kinds = {"two_object": "pair", "position": "pair", "color_attr": "pair", "colors": "color", "counting": "count"}
        key = {c for c in combinations(line) if c[0] == kinds[line["tag"]]}
        assert key and not key & train


def test_no_prompt_text_is_shared_but_for_single_objects():
    train = {line["prompt"] for line in prompts("train")}
    shared = [line for line in prompts("heldout") if line["prompt"] in train]
    assert {line["tag"] for line in shared} == {"single_object"}


def test_training_knows_every_word_that_held_out_prompts_use():
    known = {word for line in prompts("train") for word in line["prompt"].split()}
    assert {word for line in prompts("heldout") for word in line["prompt"].split()} <= known


def test_every_task_has_at_least_forty_held_out_lines_spread_over_the_classes():
    lines = prompts("heldout")
    assert all(count >= 40 for count in Counter(line["tag"] for line in lines).values())
    for tag in TAGS:
        named = {c["class"] for line in lines if line["tag"] == tag for c in line["include"]}
        assert named == set(CLASSES)
    assert {c["color"] for line in lines for c in line["include"] if "color" in c} == set(COLOURS)


def test_a_split_is_the_same_every_time_and_safe_to_change():
    first = prompts("heldout")
    first[0]["include"][0]["class"] = "changed"
    assert prompts("heldout")[0]["include"][0]["class"] in CLASSES
    assert prompts("heldout") == prompts("heldout")


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'train' or 'heldout'"):
        prompts("test")
