"""Figures of a suite from outcomes of its images, and each suite's own tables."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.evaluation import suites
from diffalign.evaluation.judges import Detection, Judges
from diffalign.evaluation.suites import Outcome, summarise

NONE = Judges()


def report(name: str, lines: list[dict], scores: list[float], **options):
    suite = suites.get(name)
    return summarise(suite, lines, [Outcome(score) for score in scores], NONE, draws=200, **options)


def lines(*tasks: str) -> list[dict]:
    return [{"task": task, "tag": task, "prompt": f"{task} {i}"} for i, task in enumerate(tasks)]


def test_overall_is_the_mean_of_tasks_or_of_images_as_the_suite_says():
    rows = lines("colors", "colors", "colors", "counting")
    assert report("geneval", rows, [1, 1, 1, 0])["overall"] == 0.5
    assert report("prompts", rows, [1, 1, 1, 0])["overall"] == 0.75
    tasks = report("prompts", rows, [1, 1, 1, 0])["tasks"]
    assert [(t, v["score"], v["images"]) for t, v in tasks.items()] == [("colors", 1, 3), ("counting", 0, 1)]


def test_an_image_that_could_not_be_scored_leaves_the_mean_and_is_counted():
    result = report("prompts", lines("a", "a", "a"), [1.0, math.nan, 0.0])
    assert (result["overall"], result["images"], result["failed"]) == (0.5, 2, 1)
    with pytest.raises(ValueError, match="none of the 2 images"):
        report("prompts", lines("a", "a"), [math.nan] * 2)
    with pytest.raises(ValueError, match="2 lines but 1 outcomes"):
        report("prompts", lines("a", "a"), [1.0])


def test_the_interval_is_over_prompts_not_over_images():
    rows = [{"task": "a", "prompt": str(i // 4)} for i in range(80)]
    generator = torch.Generator().manual_seed(0)
    by_prompt = torch.rand(20, generator=generator).repeat_interleave(4).tolist()
    wide = report("prompts", rows, by_prompt)
    narrow = report("prompts", [{**row, "prompt": str(i)} for i, row in enumerate(rows)], by_prompt)
    assert wide["overall"] == pytest.approx(narrow["overall"])
    ratio = (wide["high"] - wide["low"]) / (narrow["high"] - narrow["low"])
    assert ratio == pytest.approx(2, rel=0.35)  # four images of a prompt say no more than one
    assert wide == report("prompts", rows, by_prompt) != report("prompts", rows, by_prompt, seed=1)


def test_geneval_prints_shares_of_images_and_prompts():
    rows = [{"task": "colors", "tag": "colors", "prompt": prompt, "include": []} for prompt in "aabb"]
    details = report("geneval", rows, [1, 0, 0, 0])["details"]
    assert details == {"image_accuracy": 0.25, "prompt_accuracy": 0.5}


def test_dpg_prints_categories_of_the_last_image_as_released():
    record = {"number": 1, "text": "dog?", "parents": [], "category": "entity - whole"}
    child = {"number": 2, "text": "red?", "parents": [1], "category": "attribute - color"}
    said = {True: ["no", "yes"], False: ["yes", "yes"]}
    for name, expected in (("dpg", {"attribute - color": 1, "entity - whole": 0}),
                           ("dpg_mended", {"attribute - color": 0.5, "entity - whole": 0.5})):  # fmt: skip
        suite, judges = suites.get(name), Judges(answer=lambda images, q: [said[bool(i.max() > 0.5)] for i in images])
        line = suite.line("p", {"questions": [record, child]}, judges)
        images = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
        outcomes = suite.score(images, [line] * 2, judges)
        assert [outcome.score for outcome in outcomes] == [1, 0]
        details = summarise(suite, [line] * 2, outcomes, judges, draws=10)["details"]
        assert details["level_2"] == expected
        assert details["level_1"] == {key.split(" ")[0]: value for key, value in expected.items()}


def test_dpg_follows_dependence_in_the_order_of_the_table_and_mended_all_the_way():
    chain = [
        {"number": n, "text": f"{n}?", "parents": [n - 1] if n > 1 else [], "category": "x - y"} for n in (3, 2, 1)
    ]
    judges = Judges(answer=lambda images, questions: [["yes", "yes", "no"]] * len(images))
    for name, expected in (("dpg", 1 / 3), ("dpg_mended", 0)):
        suite = suites.get(name)
        line = suite.line("p", {"questions": chain}, judges)
        assert suite.score(torch.zeros(1, 3, 2, 2), [line], judges)[0].score == pytest.approx(expected)


def test_hrs_counting_pools_counts_over_the_images_of_a_level():
    suite = suites.get("hrs_counting")

    def detect(images, labels):
        return [[Detection("dog", 0.9, (0.0, 0.0, 1.0, 1.0))] * int(10 * image.max()) for image in images]

    judges = Judges(detect=detect)
    line = suite.line("p", {"objects": ["dog"], "numbers": [3], "task": "easy"}, judges)
    images = torch.tensor([0.51, 0.11]).view(2, 1, 1, 1).expand(2, 3, 2, 2)  # five dogs, one dog
    outcomes = suite.score(images, [line] * 2, judges)
    details = summarise(suite, [line] * 2, outcomes, judges, draws=10)["details"]
    assert details["easy"] == pytest.approx({"precision": 4 / 6, "recall": 4 / 6, "f1": 4 / 6}) == details["mean"]


def test_geneval2_prints_skills_and_numbers_of_atoms():
    record = {
        "atom_count": 3,
        "vqa_list": [["How many dogs?", "two"], ["Is it red?", "Yes"]],
        "skills": ["count", "attribute"],
    }
    judges = Judges(answer_probability=lambda images, questions, answers: [[0.25, 1.0]] * len(images))
    scores = {}
    for name in ("geneval2", "geneval2_am"):
        suite = suites.get(name)
        line = suite.line("p", record, judges)
        outcomes = suite.score(torch.zeros(2, 3, 2, 2), [line] * 2, judges)
        scores[name] = outcomes[0].score
        details = summarise(suite, [line] * 2, outcomes, judges, draws=10)["details"]
        assert details == {"by_skill": {"attribute": 1, "count": 0.25}, "by_atom_count": {3: pytest.approx(0.5)}}
    assert scores == pytest.approx({"geneval2": 0.5, "geneval2_am": 0.625})


def test_hpdv2_prints_groups_and_none_where_one_is_missing():
    suite = suites.get("hpdv2")
    rows = [{"task": "photo", "prompt": str(i)} for i in range(160)]
    scores = [20.0] * 80 + [30.0] * 80
    assert suite.details(rows, [Outcome(s) for s in scores])["photo"] == {"mean": 25, "deviation": 5}
    assert suite.details(rows, [Outcome(s) for s in [math.nan, *scores[1:]]])["photo"] is None
