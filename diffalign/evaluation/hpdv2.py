"""HPDv2's benchmark table as a pure function of scores (Wu et al., HPS v2, arXiv 2306.09341).

As released in tgxs002/HPSv2 (866735e, hpsv2/evaluation.py): four styles of 800 prompts, one image each, scored by
HPS v2 times 100. A style's figure is the mean over groups of 80 consecutive prompts, its spread their population
deviation; the average is the mean of all images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

STYLES = ("anime", "concept-art", "paintings", "photo")
GROUP = 80
PROMPTS = 800


class StyleScore(NamedTuple):
    """Mean of a style's groups and their population standard deviation."""

    mean: float
    deviation: float


def style_score(scores: Sequence[float], group: int = GROUP) -> StyleScore:
    """Figure of one style.

    Args:
        scores: score of each image in the order of the prompts, in the scorer's unit.
        group: images of a group; the last may be smaller and then weighs as much as the others, as released.

    Raises:
        ValueError: no score, or one is not finite (a missing score would move all later groups).
    """
    if not scores or not all(map(math.isfinite, scores)):
        raise ValueError(f"a style needs a finite score for each image, got {len(scores)} with gaps or none")
    groups = [scores[i : i + group] for i in range(0, len(scores), group)]
    means = [sum(g) / len(g) for g in groups]
    mean = sum(means) / len(means)
    return StyleScore(mean, math.sqrt(sum((m - mean) ** 2 for m in means) / len(means)))


def table(scores: Mapping[str, Sequence[float]]) -> dict[str, StyleScore | float]:
    """Figure of each style, and `average` over all images."""
    everything = [score for style in scores.values() for score in style]
    styles: dict[str, StyleScore | float] = {name: style_score(values) for name, values in scores.items()}
    return {**styles, "average": sum(everything) / len(everything)}
