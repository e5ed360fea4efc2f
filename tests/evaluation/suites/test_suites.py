"""What every suite keeps to, whatever its rule."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from diffalign.evaluation import suites
from diffalign.evaluation.judges import Detection, Judges
from diffalign.evaluation.suites._compbench_files import CATEGORIES
from tests.evaluation.benchmark_data import released_file

QUESTIONS = [{"number": 1, "text": "Is there a dog?", "parents": [], "category": "entity - whole"}]
VQA = {"atom_count": 3, "vqa_list": [["How many dogs are there?", "two"]], "skills": ["count"]}
SAMPLES = {
    "geneval": ("a photo of a red dog", {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]}),
    "compbench_color": ("a red dog and a blue cat", {}),
    "compbench_shape": ("a round dog and a square cat", {}),
    "compbench_texture": ("a wooden dog and a metallic cat", {}),
    "compbench_spatial": ("a dog on the left of a cat", {}),
    "compbench_3d_spatial": ("a dog in front of a cat", {}),
    "compbench_numeracy": ("two dogs and one cat", {}),
    "compbench_non_spatial": ("A dog is chasing a cat.", {}),
    "compbench_complex": ("The red dog was resting next to the blue cat.", {}),
    "dpg": ("a dog", {"questions": QUESTIONS}),
    "geneval2": ("two dogs", VQA),
    "geneval2_am": ("two dogs", VQA),
    "hrs_counting": ("two dogs", {"objects": ["dog"], "numbers": [2]}),
    "hrs_spatial": ("a dog above a cat", {"objects": ["dog", "cat"], "relations": ["above"]}),
    "hrs_size": ("a dog larger than a cat", {"objects": ["dog", "cat"], "relations": ["larger"]}),
    "hrs_color": ("a red dog", {"objects": ["dog", "cat"], "colors": ["red", "blue"]}),
    "hpdv2": ("a dog", {"style": "photo"}),
    "drawbench": ("a dog", {}),
    "partiprompts": ("a dog", {}),
    "prompts": ("a dog", {}),
}
NAMES = suites.names()


def base(name: str) -> str:
    return name.removesuffix("_mended").removesuffix("_soft").removesuffix("_reference")


class Recorder:
    """Judges whose answers depend on each image alone: on its first pixel, and on the question."""

    def __init__(self) -> None:
        self.judges = Judges(
            detect=self.detect, color=self.color, yes=self.yes, answer=self.answer, depth=lambda images: images.mean(1),
            answer_probability=self.answer_probability, similarity=self.similarity, score=self.similarity,
        )  # fmt: skip

    def detect(self, images, labels):
        assert len(labels) == len(images) and all(labels)
        return [self._objects(image, names) for image, names in zip(images, labels, strict=True)]

    def _objects(self, image, names):
        mask = torch.zeros(image.shape[1:], dtype=torch.bool)
        mask[2:9, 2:9] = True
        shift = float(image[0, 0, 0]) * 8
        boxes = [(i * 4 + shift, i * 3.0, i * 4 + 9 + shift, i * 3.0 + 9 + shift) for i in range(len(names))]
        return [Detection(n, 0.95 - i / 20, b, mask=mask) for i, (n, b) in enumerate(zip(names, boxes, strict=True))]

    def color(self, images, detections):
        return [
            ["red" if image[0, 0, 0] > 0.5 else "blue" for _ in d] for image, d in zip(images, detections, strict=True)
        ]

    def yes(self, images, questions):
        return [
            [float(image[0, 0, 0]) ** (i + 1) for i in range(len(q))]
            for image, q in zip(images, questions, strict=True)
        ]

    def answer(self, images, questions):
        return [["yes" if image[0, 0, 0] > 0.5 else "no"] * len(q) for image, q in zip(images, questions, strict=True)]

    def answer_probability(self, images, questions, answers):
        assert all("two" in accepted for image in answers for accepted in image)
        return self.yes(images, questions)

    def similarity(self, images, texts):
        return images[:, 0, 0, 0] - 0.25


def sample(name: str):
    suite = suites.get(name)
    prompt, metadata = SAMPLES[base(name)]
    judges = suite.prepare(Recorder().judges)
    return suite, suite.line(prompt, metadata, judges), judges


def images(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(count, 3, 24, 24, generator=generator)
    batch[:, :, 0, 0] = torch.linspace(0.1, 0.9, count)[:, None]
    return batch


def test_every_suite_has_a_sample_here_and_a_unique_name():
    assert {base(name) for name in NAMES} == set(SAMPLES)
    with pytest.raises(ValueError, match="did you mean `compbench_spatial`"):
        suites.get("compbench-spatial")


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_finite_and_in_range_and_the_form_for_training_lies_in_the_unit_interval(name):
    suite, line, judges = sample(name)
    scores = [outcome.score for outcome in suite.score(images(), [line] * 3, judges)]
    assert all(map(math.isfinite, scores)) and len(scores) == 3
    low, high = suite.range or (-1e9, 1e9)
    assert low <= min(scores) and max(scores) <= high
    training = suites.get(suite.soft or name)
    assert training.range == (0, 1) or "score" in suite.needs
    assert not training.soft and training.needs == suite.needs
    assert suite.score(images(0), [], judges) == []


@pytest.mark.parametrize("name", NAMES)
def test_permuting_images_permutes_scores_and_an_image_alone_scores_the_same(name):
    suite, line, judges = sample(name)
    batch, order = images(4), [2, 0, 3, 1]
    scores = [o.score for o in suite.score(batch, [line] * 4, judges)]
    assert [o.score for o in suite.score(batch[order], [line] * 4, judges)] == [scores[i] for i in order]
    assert suite.score(batch[1:2], [line], judges)[0].score == scores[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_judge_is_named(name):
    suite = suites.get(name)
    for role in suite.needs:
        if role != "parse":
            with pytest.raises(ValueError, match=f"suite {name} needs a judge for {role}"):
                suite.prepare(replace(Recorder().judges, **{role: None}))


@pytest.mark.parametrize("name", [n for n in NAMES if SAMPLES[base(n)][1] and "prompts" not in n])
def test_a_missing_field_is_named(name):
    suite, _, judges = sample(name)
    prompt, metadata = SAMPLES[base(name)]
    for key in metadata:
        with pytest.raises(ValueError, match=f"suite {name}, prompt '{prompt}': .*{key}"):
            suite.line(prompt, {k: v for k, v in metadata.items() if k != key}, judges)


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_json_and_its_parts_add_up(name):
    suite, line, judges = sample(name)
    other = {**line, "prompt": "another", "item": "another"}
    lines = [line, line, other, other]
    report = suites.summarise(suite, lines, suite.score(images(4), lines, judges), judges, draws=50)
    report = json.loads(json.dumps(report))
    assert report["images"] == 4 and report["failed"] == 0
    assert report["low"] <= report["overall"] <= report["high"]
    assert report["overall"] == pytest.approx(report["tasks"][line["task"]]["score"])
    assert report["column"].startswith(f"{name}@")


def test_a_column_bears_its_judges_unless_they_are_the_published_ones():
    suite = suites.get("compbench_spatial")

    def named(name):
        detector = Recorder().detect
        return type("D", (), {"name": name, "__call__": lambda self, *a: detector(*a)})()

    parser = type("P", (), {"name": "spacy", "__call__": lambda self, prompt: None})()
    assert suite.column(Judges(detect=named("unidet-rs200"), parse=parser)) == "compbench_spatial"
    assert suite.column(Judges(detect=named("owlv2"), parse=parser)) == "compbench_spatial@owlv2"
    assert suite.column(suite.prepare(Judges(detect=named("owlv2")))) == "compbench_spatial@owlv2+rules"


def test_lines_and_images_must_pair_up():
    suite, line, judges = sample("prompts")
    with pytest.raises(ValueError, match="3 images but 2 lines"):
        suite.score(images(), [line] * 2, judges)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_released_prompt_is_read_and_scored_by_its_suite_alone(category):
    path = released_file(f"t2i_compbench/{category}_val.txt")
    for other in CATEGORIES:
        if other != category:
            with pytest.raises(ValueError, match=f"like {category}: use the suite compbench_{category}"):
                suites.get(f"compbench_{other}").read(path)
    for name in (f"compbench_{category}", f"compbench_{category}_mended"):
        suite = suites.get(name)
        judges = suite.prepare(Recorder().judges)
        judges = replace(judges, detect=lambda images, labels: [[] for _ in images])
        lines = suite.read_lines(path, judges)
        assert len(lines) == 300
        outcomes = suite.score(images(300), lines, judges)
        assert all(math.isfinite(outcome.score) for outcome in outcomes)


def test_every_geneval_line_is_read_and_scored_and_no_other_suite_takes_it():
    path = released_file("geneval/evaluation_metadata.jsonl")
    suite = suites.get("geneval")
    judges = suite.prepare(Recorder().judges)
    lines = suite.read_lines(path, judges)
    assert len(lines) == 553
    outcomes = suite.score(images(553), lines, judges)
    report = suites.summarise(suite, lines, outcomes, judges, draws=20)
    assert sum(task["images"] for task in report["tasks"].values()) == 553 and len(report["tasks"]) == 6
    for name in NAMES:
        if base(name) not in ("geneval", "drawbench", "partiprompts", "prompts"):
            with pytest.raises(ValueError):
                suites.get(name).read_lines(path, suites.get(name).prepare(Recorder().judges))


@pytest.mark.parametrize("name", ["dpg", "geneval2", "geneval2_am", "hrs_counting"])
def test_what_a_judge_did_not_answer_has_no_score_and_leaves_the_tables(name):
    suite, line, judges = sample(name)
    lines = [line, {**line, "prompt": "another", "item": "another"}]
    scores = suite.score(images(2), lines, judges)

    def silent(images, questions, *rest):
        return [["" if name == "dpg" else math.nan for _ in asked] for asked in questions]

    if name != "hrs_counting":
        role = "answer" if name == "dpg" else "answer_probability"
        (nothing,) = suite.score(images(1), [line], replace(judges, **{role: silent}))
        assert math.isnan(nothing.score)
    report = suites.summarise(suite, lines, [scores[0], suites.Outcome(math.nan)], judges, draws=20)
    alone = suites.summarise(suite, lines[:1], scores[:1], judges, draws=20)
    assert report["failed"] == 1 and report["details"] == alone["details"] and report["overall"] == alone["overall"]
