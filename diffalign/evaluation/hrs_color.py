"""HRS-Bench's colour score as pure functions over masks (Bakr et al., arXiv 2304.05390).

Rules as released in eslambakr/HRS_benchmark (4df908c, codes/eval_metrics/colors/hue_based_color_classifier.py): an
object has the colour of the mean hue in one of its masks. `strict=True` keeps the released quirks, `strict=False` mends
them: hues are averaged as numbers, though red lies at both ends (`linear_mean`), and pixels of hue 0 leave the mean
(`zero_hue`), pure red as well as grey; mended, the mean goes round the circle and grey pixels alone are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.evaluation.judges import Detection

LIMITS = ((15, "red"), (22, "orange"), (39, "yellow"), (78, "green"), (131, "blue"))
"""A hue below the limit (180 is the full circle) has the colour; beyond the last it is red again."""
COLORS = tuple(name for _, name in LIMITS)


def hue(image: Tensor) -> Tensor:
    """Hue of each pixel in 0..179, as OpenCV computes it for 8 bits.

    Args:
        image: `(3, H, W)` in [0, 1].

    Returns:
        `(H, W)` int64; 0 for grey pixels.
    """
    red, green, blue = (image * 255).round().long().unbind(0)
    high, low = torch.stack([red, green, blue]).amax(0), torch.stack([red, green, blue]).amin(0)
    spread = high - low
    sector = torch.where(
        high == red,
        green - blue,
        torch.where(high == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    factor = torch.where(spread > 0, (180 * 4096 / (6.0 * spread.clamp_min(1))).round().long(), 0)
    turned = (sector * factor + 2048) >> 12  # fixed point with 12 bits
    return torch.where(turned < 0, turned + 180, turned)


def mean_hue(image: Tensor, mask: Tensor, *, strict: bool = True) -> float:
    """Mean hue of a mask, in [0, 180); NaN where no pixel counts.

    Args:
        image: `(3, H, W)` in [0, 1].
        mask: `(H, W)` bool.
        strict: see the module.
    """
    values = hue(image)[mask]
    if strict:
        counted = values[values != 0]
        return float(counted.double().mean()) if len(counted) else math.nan
    inside = (image * 255).round()[:, mask]
    angles = values[inside.amax(0) > inside.amin(0)].double() * (math.pi / 90)
    if not len(angles):
        return math.nan
    return float(torch.atan2(angles.sin().mean(), angles.cos().mean()) * (90 / math.pi)) % 180


def color_name(hue_value: float) -> str:
    """Colour of a hue in 0..180; red for NaN, as released."""
    return next((name for limit, name in LIMITS if hue_value < limit), "red")


def color(
    image: Tensor, detections: Sequence[Detection], objects: Sequence[tuple[str, str]], *, strict: bool = True,
    threshold: float = 0.5,
) -> float:  # fmt: skip
    """Share of the objects that are there in their colour, in [0, 1].

    Args:
        image: `(3, H, W)` in [0, 1].
        detections: objects of the image with masks of its size.
        objects: (class, colour) of each; one mask of the class in that colour is enough.
        strict: see the module.
        threshold: detections at or below it do not count.

    Raises:
        ValueError: no object, an unknown colour, or a detection of a wanted class without a mask.
    """
    wrong = [name for _, name in objects if name not in COLORS]
    if wrong or not objects:
        raise ValueError(f"each object needs one of the colours {', '.join(COLORS)}, got {wrong or 'no object'}")
    found = 0
    for label, name in objects:
        masks = [_mask(d, image) for d in detections if d.label == label and d.score > threshold]
        hues = [mean_hue(image, mask, strict=strict) for mask in masks]
        found += any(color_name(h) == name for h in hues if strict or not math.isnan(h))
    return found / len(objects)


def _mask(detection: Detection, image: Tensor) -> Tensor:
    if detection.mask is None or detection.mask.shape != image.shape[1:]:
        shape = None if detection.mask is None else tuple(detection.mask.shape)
        raise ValueError(
            f"the colour score needs a mask of the image's size {tuple(image.shape[1:])} for each {detection.label!r}, "
            f"got {shape}: use a detector that segments"
        )
    return detection.mask.to(image.device)
