"""Scenes that satisfy a GenEval line: what it names and nothing else, well apart, in random places and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.evaluation.geneval import Line, offset
from diffalign.shapes.render import Color, Item, Scene
from diffalign.shapes.splits import free_colors
from diffalign.shapes.vocabulary import COLOURS, GREY, SIZE

RADII = {1: (4.8, 7.0), 2: (4.4, 6.0), 3: (4.2, 5.2), 4: (4.2, 5.2)}
GAP = 2.0
COLOR_JITTER = 0.04
GREY_JITTER = 0.03
CLEAR_OFFSET = 0.7
DIRECTIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def _layouts(count: int, generator: torch.Generator, tries: int = 64) -> Tensor:
    """Random placements whose boxes lie inside the image and at least ``GAP`` apart: (K, count, 3) of x, y, radius."""
    low, high = RADII[count]
    draw = _uniform(generator, tries, count, 3)
    radius = low + (high - low) * draw[..., 2]
    centre = radius[..., None] + 1 + draw[..., :2] * (SIZE - 2 * radius[..., None] - 2)
    distance = (centre[:, :, None] - centre[:, None]).abs().amax(-1)
    room = distance - radius[:, :, None] - radius[:, None] + 1e6 * torch.eye(count)
    fits = (room >= GAP).flatten(1).all(1)
    return torch.cat([centre, radius[..., None]], -1)[fits]


def _satisfies(layout: Sequence[Sequence[float]], relation: str) -> bool:
    """Whether the second place stands clearly in ``relation`` to the first."""
    target, box = [(x - r, y - r, x + r, y + r) for x, y, r in layout]
    axis, sign = DIRECTIONS[relation]
    move = offset(box, target)
    return move[axis] * sign > CLEAR_OFFSET and abs(move[1 - axis]) < 0.5


def _place(count: int, relation: str | None, generator: torch.Generator) -> list[list[float]]:
    while True:
        for layout in _layouts(count, generator).tolist():
            if relation is None or _satisfies(layout, relation):
                return layout


def _jitter(rgb: Color, width: float, generator: torch.Generator) -> Color:
    shift = ((_uniform(generator, 3) * 2 - 1) * width).tolist()
    r, g, b = (min(1.0, max(0.0, c + s)) for c, s in zip(rgb, shift, strict=True))
    return r, g, b


def sample_scene(line: Line, generator: torch.Generator) -> Scene:
    """A random scene that satisfies ``line`` and holds no other object.

    Colours that the line leaves open are drawn, one by one, from those that the class is allowed to have in training,
    so that a held-out class-colour combination appears only where a prompt asks for it.

    Args:
        line: a GenEval line over the shapes vocabulary, with at most four objects.
        generator: the only source of randomness; the same seed gives the same scene.

    Raises:
        ValueError: if the line asks for more than four objects.
    """
    clauses = [clause for clause in line["include"] for _ in range(clause["count"])]
    if not 1 <= len(clauses) <= max(RADII):
        raise ValueError(f"{len(clauses)} objects asked for; a scene holds 1 to {max(RADII)}")
    relation = next((c["position"][0] for c in line["include"] if "position" in c), None)
    layout = _place(len(clauses), relation, generator)
    grey = 1 + ((_uniform(generator, 1) * 2 - 1) * GREY_JITTER / GREY[0]).item()
    items = []
    for clause, (x, y, radius) in zip(clauses, layout, strict=True):
        choices = free_colors(clause["class"])
        color = clause.get("color") or choices[int(_uniform(generator, 1).item() * len(choices))]
        items.append(Item(clause["class"], color, _jitter(COLOURS[color], COLOR_JITTER, generator), x, y, radius))
    return Scene(tuple(items), (GREY[0] * grey, GREY[1] * grey, GREY[2] * grey))
