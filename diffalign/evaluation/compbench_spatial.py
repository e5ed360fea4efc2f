"""T2I-CompBench's 2-D spatial score as a pure function over detections (Huang et al., arXiv 2307.06350).

Rules as released in Karine-Huang/T2I-CompBench (1b709499, UniDet_eval/2D_spatial_eval.py). `strict=True` keeps the
released quirks, `strict=False` mends them: no rule for "on top of" (`on_top_of`, mended in the prompt), half of the
scale set to 0 (`floor`), "near" by one axis alone (`near_one_axis`), the first detection instead of the best
(`first_detection`), one detection for both of two equal objects (`same_object`). docs/suites/compbench.md has the
table of all quirks.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffalign.evaluation.boxes import centre, iou, scaled
from diffalign.evaluation.compbench_prompts import Pair
from diffalign.evaluation.judges import Box, Detection

SCORE_THRESHOLD = 0.5
"""UniDet reports what lies above it."""
SHORT_SIDE, LONGEST_SIDE = 479, 480
NEAR_DISTANCE = 150.0
"""Pixels of the detector's frame, which is about 31 % of the side of a square image."""
FLAT_IOU = 0.1
FLOOR = 0.5
NEAR = ("next to", "on side of", "near")
DIRECTIONS = {
    "on the left of": (0, 1), "on the right of": (0, -1), "on the top of": (1, 1), "on the bottom of": (1, -1),
}  # fmt: skip
"""Axis (0 is x) and sign of the second object's centre minus the first's."""

Size = tuple[int, int]


def frame_of(size: Size) -> Size:
    """(height, width) of the frame that the released code detects in: short side 479, long side at most 480.

    Args:
        size: (height, width) of the image in pixels.
    """
    short, long = min(size), max(size)
    sides = SHORT_SIDE, int(SHORT_SIDE * long / short)
    if sides[1] > LONGEST_SIDE:
        sides = int(LONGEST_SIDE * sides[0] / sides[1]), LONGEST_SIDE
    return sides if size[0] <= size[1] else (sides[1], sides[0])


def in_frame(detections: Sequence[Detection], size: Size, threshold: float = SCORE_THRESHOLD) -> list[Detection]:
    """Detections above a score, in their order, with boxes in the released frame and without masks."""
    height, width = frame_of(size)
    factors = width / size[1], height / size[0]
    return [Detection(d.label, d.score, scaled(d.box, *factors)) for d in detections if d.score > threshold]


def flat_position(relation: str | None, first: Box, second: Box, *, strict: bool = True) -> float:
    """How well two boxes hold a relation (first ... second), in [0, 1].

    Args:
        relation: one of `NEAR` or `DIRECTIONS`; any other scores 0.
        first: box of the first object in the frame of `frame_of`.
        second: box of the second.
        strict: "near" needs one axis within the distance; else both.
    """
    start, end = centre(first), centre(second)
    delta = end[0] - start[0], end[1] - start[1]
    far, close = max(map(abs, delta)), min(map(abs, delta))
    if relation in NEAR:
        return 1.0 if (close if strict else far) < NEAR_DISTANCE else NEAR_DISTANCE / far
    if relation not in DIRECTIONS:
        return 0.0
    axis, sign = DIRECTIONS[relation]
    if delta[axis] * sign <= 0 or abs(delta[axis]) <= abs(delta[1 - axis]):
        return 0.0
    overlap = iou(first, second)
    return 1.0 if overlap < FLAT_IOU else FLAT_IOU / overlap


def spatial(
    detections: Sequence[Detection],
    pair: Pair | None,
    size: Size,
    *,
    strict: bool = True,
    threshold: float = SCORE_THRESHOLD,
) -> float:
    """Score of one image in [0, 1]: a quarter of each object's confidence and half of the position.

    Args:
        detections: objects of the image, best score first, boxes in its pixels.
        pair: objects and relation (`compbench_prompts.read_pair`), None for 0.
        size: (height, width) of the image in pixels.
        strict: released form, where a sum below one half becomes 0; else mended.
        threshold: detections at or below it do not count. Another detector than UniDet has another scale.
    """
    if pair is None:
        return 0.0
    objects = in_frame(detections, size, threshold)
    first, second = choose(objects, pair, strict=strict)
    score = sum(0.25 * found.score for found in (first, second) if found)
    if first and second:
        score += 0.5 * flat_position(pair.relation, first.box, second.box, strict=strict)
        if not strict and pair.first == pair.second:  # either of two equal objects may be the first
            swapped = 0.5 * flat_position(pair.relation, second.box, first.box, strict=False)
            score = max(score, 0.25 * (first.score + second.score) + swapped)
    return 0.0 if strict and score < FLOOR else score


def choose(
    detections: Sequence[Detection], pair: Pair, *, strict: bool = True
) -> tuple[Detection | None, Detection | None]:
    """The detection of each object: the first with its label; mended: the best, and two different ones."""
    if strict:
        found = [next((d for d in detections if d.label in labels), None) for labels in (pair.first, pair.second)]
        return found[0], found[1]
    first = best(detections, pair.first)
    return first, best([d for d in detections if d is not first], pair.second)


def best(detections: Sequence[Detection], labels: Sequence[str]) -> Detection | None:
    """The most confident detection that has one of the labels; the most specific label that is there counts."""
    for label in labels:
        found = [d for d in detections if d.label == label]
        if found:
            return max(found, key=lambda d: d.score)
    return None
