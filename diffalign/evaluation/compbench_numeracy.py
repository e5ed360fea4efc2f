"""T2I-CompBench++'s numeracy score as a pure function over detections (arXiv 2307.06350, ++ form).

Rules as released in Karine-Huang/T2I-CompBench (1b709499, UniDet_eval/numeracy_eval.py): of each object that the
prompt counts, half the credit for being there and half for the exact number. `strict=True` keeps the released quirks,
`strict=False` mends them: a small object in a larger one of its label is a duplicate (`contained_duplicate`), labels
that contain the word are renamed to it for good (`renamed_labels`), and those of reading the prompt, see
`compbench_counts`.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffalign.evaluation.boxes import area, inclusive, intersection, iou
from diffalign.evaluation.compbench_counts import Counted
from diffalign.evaluation.compbench_spatial import SCORE_THRESHOLD, Size, in_frame
from diffalign.evaluation.judges import Box, Detection

DUPLICATE = 0.9


def is_duplicate(a: Box, b: Box, *, strict: bool = True) -> bool:
    """Whether two boxes of one label are one object.

    Args:
        a: box in pixels of the released frame.
        b: the other.
        strict: sides are x1 - x0 + 1, and nine tenths of either box inside the other are enough.
    """
    if not strict:
        return iou(a, b) > DUPLICATE
    a, b = inclusive(a), inclusive(b)
    shared = intersection(a, b)
    return iou(a, b) > DUPLICATE or shared / area(a) > DUPLICATE or shared / area(b) > DUPLICATE


def distinct(detections: Sequence[Detection], *, strict: bool = True) -> list[Detection]:
    """Detections without duplicates; of two the earlier stays."""
    kept: list[Detection] = []
    for detection in detections:
        same = (d for d in kept if d.label == detection.label)
        if not any(is_duplicate(detection.box, d.box, strict=strict) for d in same):
            kept.append(detection)
    return kept


def numeracy(
    detections: Sequence[Detection],
    wanted: Sequence[Counted],
    size: Size,
    *,
    strict: bool = True,
    threshold: float = SCORE_THRESHOLD,
) -> float:
    """Score of one image in [0, 1]; confidences play no part beyond the threshold.

    Args:
        detections: objects of the image, best score first, boxes in its pixels.
        wanted: counted objects (`compbench_counts.read_counts`).
        size: (height, width) of the image in pixels.
        strict: released form; else mended.
        threshold: detections at or below it do not count.

    Raises:
        ValueError: nothing is wanted.
    """
    if not wanted:
        raise ValueError("a numeracy score needs at least one counted object; none was given")
    labels = [d.label for d in distinct(in_frame(detections, size, threshold), strict=strict)]
    score = 0.0
    for name, number in wanted:
        if strict:
            labels = labels if name in labels else [name if name in label else label for label in labels]
            found = labels.count(name)
        else:
            found = sum(label == name or label.endswith(f" {name}") for label in labels)
        score += 0.5 * (found > 0) + 0.5 * (found > 0 and found == number)
    return score / len(wanted)
