"""Box arithmetic that open-vocabulary detectors share."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.evaluation.judges import Detection


def corners(boxes: Tensor, width: float, height: float) -> Tensor:
    """Boxes `(N, 4)` of centre and size in units of a frame as corners (x0, y0, x1, y1) in pixels of the frame."""
    x, y, w, h = boxes.unbind(-1)
    scale = boxes.new_tensor([width, height, width, height])
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1) * scale


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of each pair, `(N, N)`; 0 where both have no area."""
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = area[:, None] + area[None] - common
    return torch.where(union > 0, common / union.clamp(min=torch.finfo(boxes.dtype).tiny), 0.0)


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, limit: float) -> Tensor:
    """Greedy suppression inside each label: rows that stay, best score first.

    Args:
        boxes: `(N, 4)` corners.
        scores: `(N,)`.
        labels: `(N,)`.
        limit: A box goes whose overlap with a better one of its label is above this; 1 keeps all.
    """
    order = scores.argsort(descending=True, stable=True)
    covered = (overlaps(boxes) > limit) & (labels[:, None] == labels[None])
    covered = covered[order][:, order].cpu()
    gone = torch.zeros(len(order), dtype=torch.bool)
    for row in range(len(order)):
        if not gone[row]:
            gone[row + 1 :] |= covered[row, row + 1 :]
    return order[~gone.to(order.device)]


def as_detections(
    boxes: Tensor, scores: Tensor, labels: Tensor, names: list[str], size: tuple[int, int], limit: float
) -> list[Detection]:
    """Detections of one image, cut to its `size` (height, width), after `suppress`; those outside it are dropped."""
    height, width = size
    boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
    inside = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    boxes, scores, labels = boxes[inside], scores[inside], labels[inside]
    rows = suppress(boxes, scores, labels, limit)
    values = zip(scores[rows].tolist(), labels[rows].tolist(), boxes[rows].tolist(), strict=True)
    return [Detection(names[label], score, (x0, y0, x1, y1)) for score, label, (x0, y0, x1, y1) in values]
