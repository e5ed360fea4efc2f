"""HRS-Bench's spatial and size scores as pure functions over detections (Bakr et al., arXiv 2304.05390).

Rules as released in eslambakr/HRS_benchmark (4df908c, codes/eval_metrics). `strict=True` keeps the released quirks,
`strict=False` mends them: the last detection of a class instead of the best (`last_detection`), one detection for two
objects of a class (`same_class`), a first relation that is unknown holds (`unknown_relation`). Two released faults are
not scores of an image and are left out of both forms, see docs/suites/hrs.md: prompts of the medium and hard level are
matched with images of other prompts, and a hard spatial prompt with two relations stops with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diffalign.evaluation.boxes import area
from diffalign.evaluation.judges import Box, Detection

SCORE_THRESHOLD = 0.5
ABOVE, BELOW = ("on", "above", "over"), ("below", "beneath", "under")
BETWEEN = ("between", "among", "in the middle of")
BIGGER, SMALLER = ("larger", "bigger"), ("smaller",)

Holds = Callable[[Box, Box], bool]


def spatial(
    detections: Sequence[Detection], objects: Sequence[str], relations: Sequence[str], *, strict: bool = True,
    threshold: float = SCORE_THRESHOLD,
) -> bool:  # fmt: skip
    """Whether all objects are there and in their relations.

    Args:
        detections: objects of the image, best score first.
        objects: two to four classes. Two: a relation between them. Three: the first to each of the others, or between
            them. Four: the first and the second to the third and to the fourth, or between those.
        relations: one or two. One relation of three or four objects is "between", whatever its word.
        strict: see the module.
        threshold: detections at or below it do not count.
    """
    boxes = choose(detections, objects, strict=strict, threshold=threshold)
    if boxes is None:
        return False
    movers, targets = (boxes[:2], boxes[2:]) if len(boxes) == 4 else (boxes[:1], boxes[1:])
    if len(boxes) > 2 and len(relations) == 1:
        return all(_between(box, *targets) for box in movers)
    return _all_hold(list(zip(relations, targets, strict=False)), movers, _SIDES, strict)


def size(
    detections: Sequence[Detection], objects: Sequence[str], relations: Sequence[str], *, strict: bool = True,
    threshold: float = SCORE_THRESHOLD,
) -> bool:  # fmt: skip
    """Whether all objects are there and the first box is larger or smaller than the others, as asked.

    Args:
        detections: objects of the image, best score first.
        objects: two to four classes.
        relations: one for two objects; for three the first's relation to the second and to the third; for four its
            relation to the second and third, and to the fourth.
        strict: see the module.
        threshold: detections at or below it do not count.
    """
    boxes = choose(detections, objects, strict=strict, threshold=threshold)
    if boxes is None:
        return False
    names = [relations[0], *relations] if len(boxes) == 4 else relations
    return _all_hold(list(zip(names, boxes[1:], strict=False)), boxes[:1], _SIZES, strict)


def choose(
    detections: Sequence[Detection], objects: Sequence[str], *, strict: bool, threshold: float
) -> list[Box] | None:
    """A box for each object, None if one is not there.

    Raises:
        ValueError: not two to four objects.
    """
    if not 2 <= len(objects) <= 4:
        raise ValueError(f"a composition has two to four objects, got {list(objects)}")
    left = [d for d in detections if d.score > threshold]
    left = left[::-1] if strict else sorted(left, key=lambda d: -d.score)
    chosen: list[Box] = []
    for name in objects:
        found = next((d for d in left if d.label.lower() == name), None)
        if found is None:
            return None
        chosen.append(found.box)
        if not strict:
            left.remove(found)
    return chosen


def _all_hold(
    pairs: Sequence[tuple[str, Box]], movers: Sequence[Box], table: Mapping[str, Holds], strict: bool
) -> bool:
    """Whether every mover holds its relation to every target. Released: an unknown relation holds unless it is last."""
    for index, (relation, target) in enumerate(pairs):
        if relation not in table:
            if strict and index < len(pairs) - 1:
                continue
            return False
        if not all(table[relation](box, target) for box in movers):
            return False
    return bool(pairs)


def _right(a: Box, b: Box) -> bool:
    return a[2] > b[2]


def _left(a: Box, b: Box) -> bool:
    return a[0] < b[0]


def _above(a: Box, b: Box) -> bool:
    return a[1] < b[1] or a[3] < b[3]


def _below(a: Box, b: Box) -> bool:
    return a[3] > b[3] or a[1] > b[1]


def _between(a: Box, b: Box, c: Box) -> bool:
    pairs = ((_right, _left), (_left, _right), (_below, _above), (_above, _below))
    return any(one(a, b) and other(a, c) for one, other in pairs)


_SIDES: dict[str, Holds] = {
    "on the right of": _right,
    "on the left of": _left,
    **dict.fromkeys(ABOVE, _above),
    **dict.fromkeys(BELOW, _below),
}
_SIZES: dict[str, Holds] = {
    **dict.fromkeys(BIGGER, lambda a, b: area(a) > area(b)),
    **dict.fromkeys(SMALLER, lambda a, b: area(a) < area(b)),
}
