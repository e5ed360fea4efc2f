"""Detections as JSON, for files that a detector elsewhere wrote and for the cache. Masks are COCO's run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation.judges import Detection

KEYS = ("label", "score", "box", "color", "mask")


def to_json(one: Detection) -> dict[str, Any]:
    """A detection as JSON; what it does not have is left out."""
    record: dict[str, Any] = {"label": one.label, "score": one.score, "box": list(one.box)}
    if one.color is not None:
        record["color"] = one.color
    if one.mask is not None:
        record["mask"] = encode_mask(one.mask)
    return record


def from_json(record: Any, where: str) -> Detection:
    """The detection of a JSON object with `label`, `score`, `box` and, where known, `color` and `mask`.

    Raises:
        ValueError: If it is no such object; names the place.
    """
    if not isinstance(record, Mapping) or not {"label", "score", "box"} <= set(record) <= set(KEYS):
        got = sorted(record) if isinstance(record, Mapping) else type(record).__name__
        raise ValueError(f"{where}: a detection has label, score, box and at most color and mask; got {got}")
    box, mask = record["box"], record.get("mask")
    numbers = [record["score"], *box] if isinstance(box, Sequence) and len(box) == 4 else [None]
    if not all(isinstance(value, int | float) for value in numbers):
        raise ValueError(f"{where}: score is a number and box is [x0, y0, x1, y1] in pixels, got {dict(record)}")
    x0, y0, x1, y1 = (float(value) for value in box)
    decoded = None if mask is None else decode_mask(mask, where)
    return Detection(str(record["label"]), float(record["score"]), (x0, y0, x1, y1), record.get("color"), decoded)


def encode_mask(mask: Tensor) -> dict[str, Any]:
    """COCO's uncompressed run lengths of a mask `(H, W)`: columns one after another, the first run is of zeros."""
    flat = mask.t().flatten().to("cpu", torch.int8)
    edges = torch.cat([flat.new_zeros(1), flat]).diff().nonzero().flatten()
    ends = torch.cat([edges.new_zeros(1), edges, edges.new_tensor([len(flat)])])
    return {"size": list(mask.shape), "counts": ends.diff().tolist()}


def decode_mask(record: Any, where: str) -> Tensor:
    """The mask `(H, W)` of COCO's run lengths, plain or compressed (as pycocotools writes them).

    Raises:
        ValueError: If the runs do not fill the size.
    """
    if not isinstance(record, Mapping) or not {"size", "counts"} <= set(record):
        raise ValueError(f"{where}: a mask is COCO's run lengths, an object with size [height, width] and counts")
    height, width = (int(side) for side in record["size"])
    counts = record["counts"]
    runs = torch.tensor(_expand(counts) if isinstance(counts, str) else [int(count) for count in counts])
    if int(runs.sum()) != height * width or (runs < 0).any():
        raise ValueError(f"{where}: the runs of a mask cover {int(runs.sum())} pixels of {height} x {width}")
    values = torch.arange(len(runs)) % 2 == 1
    return values.repeat_interleave(runs).view(width, height).t()


def _expand(text: str) -> list[int]:
    """Run lengths of COCO's compressed form: 5 bits a character, low first; from the fourth on, differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:  # more of this number follows
            continue
        if bits & 0x10:  # its sign
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs
