from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.shapes import prompts, render_batch, sample_scene


def scenes(lines: list[dict[str, Any]], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return render_batch([sample_scene(line, generator) for line in lines])


def scores(name: str, images: Tensor, lines: list[dict[str, Any]], **options: Any) -> Tensor:
    return rewards.get(name, **options)(images, [line["prompt"] for line in lines], lines)


def test_rendered_truth_scores_one_and_blank_scores_less() -> None:
    lines = prompts("train")[::25]
    assert scores("shapes", scenes(lines), lines).mean() > 0.97
    assert scores("shapes_strict", scenes(lines), lines).mean() > 0.95
    assert scores("shapes_strict", torch.full((len(lines), 3, 32, 32), 0.9), lines).max() == 0


def test_soft_is_one_exactly_where_strict_is() -> None:
    lines = prompts("train")[::20]
    turned = scenes(lines).roll(5, 0)  # the scene of another prompt
    soft, strict = scores("shapes", turned, lines), scores("shapes_strict", turned, lines)
    assert torch.equal(soft == 1, strict == 1)
    assert set(strict.tolist()) <= {0.0, 1.0}
    assert ((soft > 0) & (soft < 1)).any(), "the soft score must tell half-right from wrong"


def test_the_three_variants_differ_and_say_so() -> None:
    lines = prompts("train")[::20]
    turned = scenes(lines).roll(5, 0)
    found = {v: scores("shapes", turned, lines, variant=v) for v in ("soft", "strict", "reference")}
    assert not torch.equal(found["soft"], found["strict"]) and not torch.equal(found["soft"], found["reference"])
    assert rewards.get("shapes", variant="strict").name == rewards.get("shapes_strict").name == "shapes_strict"
    assert rewards.get("shapes", variant="reference").range is None


def test_graded_charges_for_more_than_was_asked() -> None:
    one = {"tag": "single_object", "include": [{"class": "circle", "count": 1}], "prompt": "a photo of a circle"}
    two = {**one, "include": [{"class": "circle", "count": 2}]}
    images = torch.cat([scenes([one]), scenes([two])])
    assert scores("shapes_graded", images, [one, one]).tolist() == pytest.approx([1.0, 0.5], abs=0.02)
    assert scores("shapes", images, [one, one]).tolist() == [1.0, 1.0]


def test_a_colour_that_is_wrong_costs_half() -> None:
    include = [{"class": "circle", "count": 1, "color": "red"}]
    line = {"tag": "colors", "include": include, "prompt": "a photo of a red circle"}
    other = {**line, "include": [{"class": "circle", "count": 1, "color": "blue"}]}
    images = torch.cat([scenes([line]), scenes([other])])
    assert scores("shapes", images, [line, line]).tolist() == pytest.approx([1.0, 0.5])


def test_strict_is_the_benchmarks_at_least_not_exactly() -> None:
    one = {"tag": "single_object", "include": [{"class": "circle", "count": 1}], "prompt": "a photo of a circle"}
    two = {**one, "include": [{"class": "circle", "count": 2}]}
    assert scores("shapes_strict", scenes([two]), [one]).item() == 1.0
    assert scores("shapes_strict", scenes([one]), [two]).item() == 0.0


def test_prompts_without_metadata_are_a_wiring_error() -> None:
    with pytest.raises(ValueError, match="'shapes' needs GenEval metadata.*'a cat'"):
        rewards.get("shapes")(torch.zeros(1, 3, 32, 32), ["a cat"], [{}])


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="valid: soft, strict, reference"):
        rewards.get("shapes", variant="hard")
