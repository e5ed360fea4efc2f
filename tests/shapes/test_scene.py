from __future__ import annotations

import pytest
import torch

from diffalign.evaluation import geneval
from diffalign.evaluation import geneval_prompts as grammar
from diffalign.shapes import prompts, sample_scene
from diffalign.shapes.splits import HELD_COLORS


def truth(scene) -> list[geneval.Detection]:
    return [geneval.Detection(item.label, 1.0, item.box, item.color) for item in scene.items]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_scenes_satisfy_their_line_and_hold_nothing_else(split):
    generator = torch.Generator().manual_seed(0)
    for line in prompts(split)[::3]:
        scene = sample_scene(line, generator)
        assert geneval.explain(truth(scene), line) == []
        assert len(scene.items) == sum(clause["count"] for clause in line["include"])


def test_objects_lie_inside_and_apart(heldout):
    for scene in heldout[1]:
        for i, item in enumerate(scene.items):
            assert min(item.box) >= 1 - 1e-4 and max(item.box) <= 31 + 1e-4
            for other in scene.items[:i]:
                gap = max(abs(item.x - other.x), abs(item.y - other.y)) - item.radius - other.radius
                assert gap >= 2 - 1e-4


def test_training_scenes_never_show_a_held_out_class_and_colour():
    generator = torch.Generator().manual_seed(0)
    for line in prompts("train"):
        assert not {(item.label, item.color) for item in sample_scene(line, generator).items} & HELD_COLORS


def test_colours_that_are_left_open_vary():
    generator = torch.Generator().manual_seed(0)
    line = grammar.counting("circle", 4)
    seen = {item.color for _ in range(40) for item in sample_scene(line, generator).items}
    assert len(seen) == 6  # eight colours less the two that circles are never seen in


def test_too_many_objects_are_refused():
    with pytest.raises(ValueError, match="holds 1 to 4"):
        sample_scene(grammar.counting("circle", 5), torch.Generator())
