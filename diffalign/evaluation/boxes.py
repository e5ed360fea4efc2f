"""Geometry of boxes (x0, y0, x1, y1), y downwards, as plain numbers: what the rules of the benchmarks are made of."""

from __future__ import annotations

from diffalign.evaluation.judges import Box


def area(box: Box) -> float:
    """Width times height; 0 for a box without extent."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def centre(box: Box) -> tuple[float, float]:
    """(x, y) of the middle."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def intersection(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Intersection over union in [0, 1]; 0 where neither box has an area."""
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


def inclusive(box: Box) -> Box:
    """The box with its last row and column counted, for rules that measure a side as x1 - x0 + 1."""
    return box[0], box[1], box[2] + 1, box[3] + 1


def scaled(box: Box, x: float, y: float) -> Box:
    """The box in a frame whose sides are `x` and `y` times as long."""
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y
