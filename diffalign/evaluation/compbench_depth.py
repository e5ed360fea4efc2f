"""T2I-CompBench's 3-D spatial score as a pure function over detections and a depth map (arXiv 2307.06350, ++ form).

Rules as released in Karine-Huang/T2I-CompBench (1b709499, UniDet_eval/3D_spatial_eval.py). `strict=True` keeps the
released quirks, `strict=False` mends them: depth read with rows and columns exchanged (`transposed_depth`), an overlap
of exactly one half worth 0 (`exact_half`), labels that only contain the word (`contained_label`), the last match
before the other object's first (`last_match`). Depth is larger for what is nearer. Objects whose boxes do not overlap
score no position in both forms: that is the benchmark's definition.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from diffalign.evaluation.boxes import iou
from diffalign.evaluation.compbench_prompts import Pair
from diffalign.evaluation.compbench_spatial import SCORE_THRESHOLD, Size, choose, frame_of, in_frame
from diffalign.evaluation.judges import Box, Detection

DEPTH_IOU = 0.5


def framed_depth(depth: Tensor, *, strict: bool = True) -> Tensor:
    """Depth in [0, 1] in the released frame.

    Args:
        depth: (H, W) of any scale, of the image's size; larger is nearer.
        strict: rounded to 8 bits on the way, as the released code stores it.

    Returns:
        (H', W') float32; NaN for a map of one value.

    Raises:
        ValueError: not a matrix.
    """
    if depth.ndim != 2:
        raise ValueError(f"a depth map is (H, W), got {tuple(depth.shape)}")
    depth = depth.float()
    low, high = depth.min(), depth.max()
    unit = (depth - low) / (high - low)
    height, width = frame_of((depth.shape[0], depth.shape[1]))
    if not strict:
        return _resized(unit, height, width)
    wide = _resized((255 * unit).floor(), depth.shape[0], width).round()  # as Pillow does: width first, in 8 bits
    return _resized(wide, height, width).round() / 255


def box_depth(depth: Tensor, box: Box, *, strict: bool = True) -> float:
    """Mean depth in a box of the same frame; NaN where nothing of the map lies in it.

    Args:
        depth: (H, W).
        box: (x0, y0, x1, y1) in pixels of the map.
        strict: x picks the rows and y the columns.
    """
    x0, y0, x1, y1 = (max(0, int(side)) for side in box)
    part = depth[x0:x1, y0:y1] if strict else depth[y0:y1, x0:x1]
    return float(part.mean()) if part.numel() else float("nan")


def depth_position(relation: str | None, first: Box, second: Box, depth: Tensor, *, strict: bool = True) -> float:
    """How well two boxes hold "in front of", "behind" or "hidden" (first ... second), in [0, 1].

    Args:
        relation: one of the three; any other scores 0.
        first: box of the first object in pixels of the map.
        second: box of the second.
        depth: (H, W), larger is nearer.
        strict: see the module.
    """
    difference = box_depth(depth, first, strict=strict) - box_depth(depth, second, strict=strict)
    holds = {"in front of": difference > 0, "behind": difference < 0, "hidden": difference < 0}.get(
        relation or "", False
    )
    overlap = iou(first, second)
    if not holds or (strict and overlap == DEPTH_IOU):
        return 0.0
    return min(1.0, overlap / DEPTH_IOU)


def spatial_depth(
    detections: Sequence[Detection],
    pair: Pair | None,
    depth: Tensor,
    *,
    strict: bool = True,
    threshold: float = SCORE_THRESHOLD,
) -> float:
    """Score of one image in [0, 1]: a quarter of each object's confidence and half of the position; no floor.

    Args:
        detections: objects of the image, best score first, boxes in its pixels.
        pair: objects and relation (`compbench_prompts.read_pair` with `DEPTH_RELATIONS`).
        depth: (H, W) of the image's size and any scale; larger is nearer.
        strict: released form; else mended.
        threshold: detections at or below it do not count.
    """
    if pair is None:
        return 0.0
    size: Size = (depth.shape[0], depth.shape[1])
    objects = in_frame(detections, size, threshold)
    first, second = _last_matches(objects, pair) if strict else choose(objects, pair, strict=False)
    score = sum(0.25 * found.score for found in (first, second) if found)
    if not (first and second):
        return score
    depths = framed_depth(depth, strict=strict)
    position = depth_position(pair.relation, first.box, second.box, depths, strict=strict)
    if not strict and pair.first == pair.second:
        position = max(position, depth_position(pair.relation, second.box, first.box, depths, strict=False))
    return score + 0.5 * position


def _last_matches(objects: Sequence[Detection], pair: Pair) -> tuple[Detection | None, Detection | None]:
    """Released choice: walk in order, later matches replace earlier ones, stop as soon as both objects have one."""
    names = pair.first[0], pair.second[0]
    found: list[Detection | None] = [next((d for d in objects if name in d.label), None) for name in names]
    if not all(found):
        return found[0], found[1]
    found = [None, None]
    for detection in objects:
        for place, name in enumerate(names):
            if name in detection.label:
                found[place] = detection
        if all(found):
            break
    return found[0], found[1]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """(H, W) to (height, width), bilinear with antialiasing."""
    return F.interpolate(image[None, None], (height, width), mode="bilinear", antialias=True)[0, 0]
