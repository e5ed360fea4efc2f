from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffalign.evaluation import geneval_prompts as grammar

REFERENCE = Path(__file__).parents[3] / "shared/data/geneval/evaluation_metadata.jsonl"
CLASSES = ("orange", "bus", "dog")
COLORS = ("red", "orange")


@pytest.fixture(scope="module")
def reference() -> list[dict]:
    if not REFERENCE.is_file():
        pytest.skip("GenEval's own metadata file is not beside the repository")
    return [json.loads(line) for line in REFERENCE.read_text().splitlines() if line.strip()]


def rebuilt(line: dict) -> dict:
    first, *rest = line["include"]
    tag, second = line["tag"], (rest or [{}])[0]
    makers = {
        "single_object": lambda: grammar.single_object(first["class"]),
        "two_object": lambda: grammar.two_object(first["class"], second["class"]),
        "counting": lambda: grammar.counting(first["class"], first["count"]),
        "colors": lambda: grammar.colors(first["class"], first["color"]),
        "position": lambda: grammar.position(second["class"], second["position"][0], first["class"]),
        "color_attr": lambda: grammar.color_attr(first["class"], first["color"], second["class"], second["color"]),
    }
    return makers[tag]()


def test_every_published_line_is_reproduced_from_its_metadata(reference):
    assert len(reference) == 553
    for line in reference:
        assert grammar.wording(line) == line["prompt"]
        assert rebuilt(line) == line


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        (grammar.single_object("orange"), "a photo of an orange"),
        (grammar.two_object("orange", "bus"), "a photo of an orange and a bus"),
        (grammar.counting("bus", 3), "a photo of three buses"),
        (grammar.counting("bench", 4), "a photo of four benchs"),
        (grammar.colors("bus", "orange"), "a photo of an orange bus"),
        (grammar.position("dog", "left of", "orange"), "a photo of a dog left of an orange"),
        (grammar.color_attr("dog", "red", "bus", "orange"), "a photo of a red dog and an orange bus"),
    ],
)
def test_wording(line, prompt):
    assert line["prompt"] == prompt


def test_counting_excludes_one_more_and_position_points_at_the_reference():
    assert grammar.counting("dog", 3)["exclude"] == [{"class": "dog", "count": 4}]
    assert "exclude" not in grammar.single_object("dog")
    include = grammar.position("dog", "above", "bus")["include"]
    assert include[0] == {"class": "bus", "count": 1}
    assert include[1]["position"] == ["above", 0] and include[1]["class"] == "dog"


def test_every_line_covers_six_tasks_without_repeats():
    lines = grammar.every_line(CLASSES, COLORS)
    sizes = {tag: sum(line["tag"] == tag for line in lines) for tag in grammar.TAGS}
    assert sizes == {
        "single_object": 3, "two_object": 6, "counting": 9, "colors": 6, "position": 24, "color_attr": 12,
    }  # fmt: skip
    assert len({line["prompt"] for line in lines}) == len(lines)


def test_prompt_words_and_metadata_agree():
    # read the prompt back with a small grammar of the test's own and compare with the clauses
    for line in grammar.every_line(CLASSES, COLORS):
        text = line["prompt"].removeprefix("a photo of ")
        for clause in line["include"]:
            noun = clause["class"] + {"bus": "es"}.get(clause["class"], "s") * (clause["count"] > 1)
            color = clause["color"] + " " if "color" in clause else ""
            number = {1: "", 2: "two ", 3: "three ", 4: "four "}[clause["count"]]
            assert number + color + noun in text
        relation = [c["position"][0] for c in line["include"] if "position" in c]
        assert [r for r in grammar.RELATIONS if f" {r} " in text] == relation


def test_user_errors_name_the_way_out():
    with pytest.raises(ValueError, match="use one of left of"):
        grammar.position("dog", "near", "bus")
    with pytest.raises(ValueError, match="no number word"):
        grammar.counting("dog", 40)
    with pytest.raises(ValueError, match="one or two"):
        grammar.wording({"include": []})
