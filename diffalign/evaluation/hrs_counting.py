"""HRS-Bench's counting score as pure functions over detections (Bakr et al., arXiv 2304.05390).

Rules as released in eslambakr/HRS_benchmark (4df908c, codes/eval_metrics/counting/calc_counting_acc.py). The released
code divides by zero where nothing was found or wanted; here such a precision or recall is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from diffalign.evaluation.hrs import SCORE_THRESHOLD
from diffalign.evaluation.judges import Detection


class Counts(NamedTuple):
    """Objects that are right, too many, too few."""

    right: int
    excess: int
    missing: int


def counting(
    detections: Sequence[Detection], wanted: Mapping[str, int], *, threshold: float = SCORE_THRESHOLD
) -> Counts:
    """How the numbers of an image fit: for each class the smaller number is right, the difference excess or missing.

    Args:
        detections: objects of the image.
        wanted: class -> number.
        threshold: detections at or below it do not count.
    """
    found = [d.label.lower() for d in detections if d.score > threshold]
    pairs = [(found.count(name), number) for name, number in wanted.items()]
    return Counts(
        sum(min(pair) for pair in pairs),
        sum(max(have - want, 0) for have, want in pairs),
        sum(max(want - have, 0) for have, want in pairs),
    )


def precision_recall(counts: Iterable[Counts]) -> dict[str, float]:
    """Precision, recall and F1 in [0, 1] of the summed counts of some images; 0 where nothing was found or wanted."""
    right, excess, missing = (sum(column) for column in zip(*counts, strict=True))
    precision = right / (right + excess) if right + excess else 0.0
    recall = right / (right + missing) if right + missing else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}
