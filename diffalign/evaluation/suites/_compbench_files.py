"""Tells T2I-CompBench's prompt files apart, so that a category is not scored on another's prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffalign.evaluation.lexicon import COLORS, MATERIALS, SHAPES, SIZES

CATEGORIES = ("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex")
MOST, SOME = 0.8, 0.3
_FLAT = re.compile(r"\ban? .+ (on (the )?(side|left|right|top|bottom) of|next to|near) ")
_DEPTH = re.compile(r"\ban? .+ (in front of|behind|hidden by) ")
_NUMBERS = frozenset("one two three four five six seven eight nine ten".split())


def recognise(prompts: Sequence[str]) -> str:
    """The category whose form these prompts have; `non_spatial` for sentences without any."""
    words = [set(re.findall("[a-z]+", prompt.lower())) for prompt in prompts]
    plain = [prompt.lower() for prompt in prompts]
    sentences = _share(prompt[:1].isupper() for prompt in prompts) > 0.5
    attributes = COLORS | SHAPES | SIZES | MATERIALS
    if _share(bool(_DEPTH.match(prompt)) for prompt in plain) >= MOST:
        return "3d_spatial"
    if _share(bool(_FLAT.match(prompt)) for prompt in plain) >= MOST:
        return "spatial"
    if not sentences:
        kinds = {"numeracy": _NUMBERS, "color": COLORS, "shape": SHAPES | SIZES, "texture": MATERIALS}
        shares = {kind: _share(bool(found & known) for found in words) for kind, known in kinds.items()}
        best = max(shares, key=lambda kind: shares[kind])
        if shares[best] >= MOST:
            return best
    described = _share(bool(found & attributes) for found in words) >= SOME
    return "complex" if sentences and described else "non_spatial"


def check_category(category: str, prompts: Sequence[str], where: str) -> None:
    """Refuses prompts of another form than the category's.

    Raises:
        ValueError: the prompts look like another category.
    """
    seen = recognise(prompts)
    if seen != category:
        raise ValueError(
            f"{where} does not look like prompts of T2I-CompBench's category {category}, but like {seen}: use the "
            f"suite compbench_{seen} for them"
        )


def _share(flags: object) -> float:
    values = list(flags)  # type: ignore[call-overload]
    return sum(values) / len(values)
