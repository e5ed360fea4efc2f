"""Benchmark suites as rewards, on scenes of the embedded world and its detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.evaluation import geneval_prompts as grammar
from diffalign.evaluation import suites
from diffalign.rewards.suites import SuiteReward
from diffalign.shapes import CLASSES, prompts, render_batch, sample_scene

WORDS = {
    "left of": "on the left of",
    "right of": "on the right of",
    "above": "on the top of",
    "below": "on the bottom of",
}
TURNED = {"left of": "right of", "right of": "left of", "above": "above", "below": "below"}


def scenes(lines: list[dict[str, Any]]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return render_batch([sample_scene(line, generator) for line in lines])


def score(
    name: str, images: Tensor, texts: list[str], records: list[dict[str, Any]] | None = None, **options: Any
) -> Tensor:
    reward = rewards.get(name, detect="shapes", **options)
    return rewards.check_contract(reward, images, texts, records or [{}] * len(texts))


def spatial_lines() -> list[tuple[str, str, str]]:
    pairs = [(a, b) for a in CLASSES for b in CLASSES if a != b][::4]
    return [(a, list(WORDS)[i % 4], b) for i, (a, b) in enumerate(pairs)]


def test_geneval_with_the_shapes_detector_is_the_shapes_reward():
    lines = prompts("train")[::40]
    texts = [line["prompt"] for line in lines]
    turned = scenes(lines)
    turned[::2] = turned[::2].roll(3, 0)
    for soft, other in ((True, "shapes"), (False, "shapes_strict")):
        expected = rewards.get(other)(turned, texts, lines)
        assert torch.equal(score("geneval", turned, texts, lines, soft=soft), expected)
        assert 0 < expected.mean() < 1
    released = rewards.get("shapes", variant="reference")(turned, texts, lines)
    assert torch.equal(score("geneval_reference", turned, texts, lines), released)


def test_the_form_of_flow_grpos_reward_server_falls_below_zero_with_each_object_too_many():
    crowded = scenes([grammar.counting("circle", 4)])
    one, text = grammar.single_object("circle"), ["a photo of a circle"]
    assert score("geneval", crowded, text, [one]) == 1.0
    assert score("geneval_reference", crowded, text, [one]) == -2.0


@pytest.mark.parametrize("soft", [False, True])
def test_spatial_prompts_of_compbench_in_the_shapes_vocabulary(soft):
    triples = spatial_lines()
    texts = [f"a {a} {WORDS[relation]} a {b}" for a, relation, b in triples]
    images = scenes([grammar.position(*triple) for triple in triples])
    right = score("compbench_spatial", images, texts, soft=soft)
    assert right.mean() > 0.9 and right.min() > 0.7
    flipped = score("compbench_spatial", images.flip(-1), texts, soft=soft)
    sideways = torch.tensor([relation in ("left of", "right of") for _, relation, _ in triples])
    assert flipped[sideways].max() <= 0.5 and flipped[~sideways].min() > 0.7
    mirrored = [f"a {a} {WORDS[TURNED[relation]]} a {b}" for a, relation, b in triples]
    assert score("compbench_spatial", images.flip(-1), mirrored, soft=soft).mean() > 0.9
    blank = score("compbench_spatial", torch.full_like(images, 0.5), texts, soft=soft)
    assert blank.max() == 0


def test_numeracy_prompts_of_compbench_in_the_shapes_vocabulary():
    cases = [("circle", 2), ("square", 3), ("cross", 4), ("heart", 2)]
    words = ("two", "three", "four")
    texts = [f"{words[n - 2]} {grammar.plural(name)}" for name, n in cases]
    images = scenes([grammar.counting(name, n) for name, n in cases])
    assert score("compbench_numeracy", images, texts, soft=True).tolist() == [1.0] * 4
    wrong = [f"{words[(n - 1) % 3]} {grammar.plural(name)}" for name, n in cases]
    assert score("compbench_numeracy", images, wrong, soft=True).tolist() == [0.5] * 4
    with pytest.raises(ValueError, match="counts no object of the released list"):
        score("compbench_numeracy", images, texts)
    counts = [{"counts": {name: n}} for name, n in cases]  # metadata replaces the fixed vocabulary
    assert score("compbench_numeracy", images, texts, counts).tolist() == [1.0] * 4


def test_size_and_number_of_hrs_on_scenes():
    images = scenes([grammar.two_object("circle", "square")] * 6)
    records = [
        {"objects": ["circle", "square"], "relations": ["larger"]},
        {"objects": ["square", "circle"], "relations": ["larger"]},
    ]
    both = [score("hrs_size", images, ["a"] * 6, [record] * 6) for record in records]
    assert torch.equal(both[0] + both[1], torch.ones(6)) and set(both[0].tolist()) == {0.0, 1.0}
    wanted = {"objects": ["circle", "square"], "numbers": [1, 2]}
    assert score("hrs_counting", images, ["a"] * 6, [wanted] * 6).tolist() == pytest.approx([0.8] * 6)


def own_yes(images: Tensor, questions: list[list[str]]) -> list[list[float]]:
    return [[float(image.mean())] * len(asked) for image, asked in zip(images, questions, strict=True)]


def test_a_judge_is_a_name_a_file_or_a_callable_and_the_name_tells(tmp_path: Path):
    file = tmp_path / "judge.py"
    file.write_text("def yes(images, questions):\n    return [[0.5] * len(q) for q in questions]\n")
    images, texts = torch.rand(2, 3, 8, 8), ["a red cup and a blue bowl"] * 2
    from_file = rewards.get("compbench_color", yes=f"{file}:yes", soft=True)
    assert from_file(images, texts, [{}] * 2).tolist() == [0.25, 0.25]
    assert from_file.name == "compbench_color_mended@judge.py:yes+rules"
    own = rewards.get("compbench_color", yes=own_yes)
    assert own.name == "compbench_color@own_yes+rules" and own.range == (0, 1)
    assert own(images, texts, [{}] * 2).tolist() == pytest.approx(
        [round(float(i.mean()), 4) ** 2 for i in images], abs=1e-4
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs a judge for detect"),
        ({"detector": "shapes"}, "did you mean `detect`"),
        ({"detect": "shape"}, "did you mean `shapes`"),
        ({"detect": own_yes, "judge_kwargs": {"detect": {"model": "x"}}}, "a judge not given by name"),
        ({"detect": "shapes", "judge_kwargs": {"detect": {"model": "x"}}}, "does not take"),
    ],
)
def test_mistakes_in_the_judges_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        rewards.get("compbench_spatial", **options)


def test_a_prompt_that_the_suite_cannot_read_is_an_error_not_a_zero():
    with pytest.raises(ValueError, match="suite compbench_spatial, prompt 'a dog': .*relation"):
        score("compbench_spatial", torch.rand(1, 3, 32, 32), ["a dog"])
    with pytest.raises(ValueError, match="lacks 'tag'"):
        score("geneval", torch.rand(1, 3, 32, 32), ["a photo of a dog"])


def test_every_suite_with_a_rule_is_a_registered_reward():
    classes = {entry.name: rewards.registry.declaration(entry) for entry in rewards.entries()}
    made = {name: one for name, one in classes.items() if issubclass(one, SuiteReward)}
    assert {name: one.suite for name, one in made.items()} == {one.suite: one.suite for one in made.values()}
    left = {name for name in suites.names() if "_mended" not in name} - set(made) - {"geneval_soft"}
    assert all(suites.get(suites.get(name).soft or name) for name in suites.names())
    assert left == {"geneval2_am", "hpdv2", "drawbench", "partiprompts", "prompts"}
