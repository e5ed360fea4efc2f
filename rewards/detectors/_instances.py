"""The way into and out of an instance segmentation model of Mask2Former's kind, as pure functions of tensors.

As in both releases: detectron2's `ResizeShortestEdge` and the authors' `instance_inference`; OpenMMLab's fusion head
computes the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from diffalign.rewards.images import resize_bytes

SHORT, LONG, DIVISOR = 800, 1333, 32
"""Pixels: short side of the resized image, limit of the long one, and what the padded sides are a multiple of."""
MEAN, STD = (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)
TOP = 100
"""Pairs of query and class that are looked at, by class probability."""
EPSILON = 1e-6


class Instances(NamedTuple):
    """Instances of one image, best score first: scores, class indices `(N,)`, boxes `(N, 4)`, masks `(N, H, W)`."""

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor


def resized_sides(height: int, width: int) -> tuple[int, int]:
    """Height and width with the short side at 800 pixels, or the long one at 1333 where it would be longer."""
    scale = min(SHORT / min(height, width), LONG / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def pixel_input(images: Tensor, height: int, width: int) -> Tensor:
    """Images `(B, 3, H, W)` in [0, 1], resized, normalised, padded with 0 right and below to multiples of 32."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = (resize_bytes(images, height, width, "bilinear") - mean) / std
    return functional.pad(pixels, (0, -width % DIVISOR, 0, -height % DIVISOR))


def instances(
    classes: Tensor,
    masks: Tensor,
    padded: tuple[int, int] | torch.Size,
    resized: tuple[int, int],
    size: tuple[int, int] | torch.Size,
    *,
    floor: float = 0.0,
) -> Instances:
    """The instances of one image.

    The score of a pair of query and class is the class probability (softmax over the classes and "no object") times
    the mean of the mask's probabilities over the mask, where its logit at the image's size is above 0.

    Args:
        classes: `(Q, C + 1)` class logits, the last for "no object".
        masks: `(Q, h, w)` mask logits of the padded input.
        padded: Height and width of the model's input.
        resized: Height and width of the image in it.
        size: Height and width of the image itself.
        floor: Scores up to this are left out.

    Returns:
        At most 100 instances, best score first; boxes (x0, y0, x1, y1) end one pixel behind the mask's last.
    """
    probabilities = classes.softmax(-1)[:, :-1]
    number = probabilities.shape[1]
    best, where = probabilities.flatten().topk(min(TOP, probabilities.numel()))
    kept = best > floor  # a mask's mean is at most 1, so the score cannot rise above the class probability
    best, where = best[kept], where[kept]
    queries, rows = (where // number).unique(return_inverse=True)
    logits = _at_image_size(masks[queries], padded, resized, size)
    inside = logits > 0
    area = inside.flatten(1).sum(1)
    certainty = (logits.sigmoid() * inside).flatten(1).sum(1) / (area + EPSILON)
    scores = best * certainty[rows]
    order = scores.argsort(descending=True, stable=True)
    order = order[(scores[order] > floor) & (area[rows[order]] > 0)]
    return Instances(scores[order], where[order] % number, mask_boxes(inside)[rows[order]], inside[rows[order]])


def _at_image_size(
    masks: Tensor, padded: tuple[int, int] | torch.Size, resized: tuple[int, int], size: tuple[int, int] | torch.Size
) -> Tensor:
    """Mask logits `(N, h, w)` of the padded input as `(N, *size)`: to its size, without the padding, to the image's."""
    if not len(masks):
        return masks.new_zeros(0, *size)
    large = functional.interpolate(masks[None], tuple(padded), mode="bilinear", align_corners=False)
    large = large[..., : resized[0], : resized[1]]
    return functional.interpolate(large, tuple(size), mode="bilinear", align_corners=False)[0]


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes `(N, 4)` float around masks `(N, H, W)` that hold at least one pixel; one behind the last pixel."""
    edges = []
    for hits in (masks.any(1), masks.any(2)):
        places = torch.arange(hits.shape[1], device=hits.device)
        edges.append(torch.where(hits, places, hits.shape[1]).amin(1) if len(hits) else hits.new_zeros(0).long())
        edges.append(torch.where(hits, places, -1).amax(1) + 1 if len(hits) else hits.new_zeros(0).long())
    return torch.stack([edges[0], edges[2], edges[1], edges[3]], 1).float()
