"""Images in [0, 1] to the input of a vision model: resizing, cropping, padding, normalising, all with a gradient.

Most published scores were made by PIL on 8-bit images, so each step is PIL's: bicubic with antialiasing (the same
kernel, a = -1/2), the width first, then the height, each result rounded to 8 bits. Rounding is straight-through (the
value of the rounded image, the gradient of the unrounded one), so a score is the same with and without a graph.
HPSv2 was published on float tensors: its transform rounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RANGE_TOLERANCE = 1e-3

Fit = Callable[[Tensor, int, str], Tensor]
"""`(images (B, 3, H, W), size, interpolation mode) -> (B, 3, size, size)`."""


def check_images(images: Tensor) -> Tensor:
    """Which images of a batch can be scored.

    Args:
        images: `(B, 3, H, W)` float in [0, 1].

    Returns:
        `(B,)` bool: whether each image is finite.

    Raises:
        ValueError: If the batch is empty, the images are no `(B, 3, H, W)` floats, or a finite one leaves [0, 1].
    """
    got = f"got {tuple(images.shape)} {images.dtype}"
    if not images.is_floating_point():
        raise ValueError(
            f"images are (B, 3, H, W) floats in [0, 1], {got}; 8-bit images carry no gradient: divide by 255 where "
            "they are read, and round to 8 bits only outside a reward"
        )
    if images.ndim != 4 or images.shape[1] != 3:
        hint = "; channels come before height and width" if images.ndim == 4 and images.shape[-1] == 3 else ""
        raise ValueError(f"images are (B, 3, H, W) floats in [0, 1], {got}{hint}")
    if not images.numel():
        raise ValueError(f"the batch is empty: {got}; score at least one image")
    sound = images.isfinite().flatten(1).all(1)
    seen = images.detach()[sound]
    if seen.numel() and (seen.min() < -RANGE_TOLERANCE or seen.max() > 1 + RANGE_TOLERANCE):
        raise ValueError(
            f"images are in [0, 1], got {seen.min():.3g} to {seen.max():.3g}; decoded latents in [-1, 1] become images "
            "by (x / 2 + 0.5).clamp(0, 1)"
        )
    return sound


def resize(images: Tensor, height: int, width: int, mode: str = "bicubic") -> Tensor:
    """Images `(B, 3, H, W)` at another size, antialiased; `mode` is bicubic (may overshoot [0, 1]) or bilinear."""
    if images.shape[-2:] == (height, width):
        return images
    return functional.interpolate(images, (height, width), mode=mode, align_corners=False, antialias=True)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] of any shape as 8 bits on the CPU, rounded to the nearest level; ends the gradient."""
    return (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def as_bytes(images: Tensor) -> Tensor:
    """Images at the 256 levels of 8 bits, clamped to [0, 1], with the gradient of the identity (straight-through)."""
    levels = (images.detach().clamp(0, 1) * 255 + 0.5).floor() / 255
    return images + (levels - images).detach()


def resize_bytes(images: Tensor, height: int, width: int, mode: str = "bicubic") -> Tensor:
    """`resize` as PIL does it on 8-bit images `(B, 3, H, W)`: the width, 8 bits, the height, 8 bits.

    Since version 13 (Pillow's pull request 9549) PIL does the height first where it shrinks much more than the width.
    Published scores are older.
    """
    if images.shape[-1] != width:
        images = as_bytes(resize(images, images.shape[-2], width, mode))
    if images.shape[-2] != height:
        images = as_bytes(resize(images, height, width, mode))
    return images


def _short_side(images: Tensor, size: int, mode: str) -> Tensor:
    """Images with the short side at `size` pixels."""
    height, width = images.shape[-2:]
    short = min(height, width)
    return resize_bytes(images, int(size * height / short), int(size * width / short), mode)


def crop_to_square(images: Tensor, size: int, mode: str = "bicubic") -> Tensor:
    """Short side to `size`, then the centre: `(B, 3, size, size)`. The transform of OpenAI's CLIP and of open_clip.

    An offset of half a pixel is rounded to the even number, as in torchvision's `CenterCrop`.
    """
    scaled = _short_side(images, size, mode)
    top, left = round((scaled.shape[-2] - size) / 2), round((scaled.shape[-1] - size) / 2)
    return scaled[..., top : top + size, left : left + size]


def crop_to_square_floor(images: Tensor, size: int, mode: str = "bicubic") -> Tensor:
    """`crop_to_square` with the offset rounded down, as the image processors of transformers do."""
    scaled = _short_side(images, size, mode)
    top, left = (scaled.shape[-2] - size) // 2, (scaled.shape[-1] - size) // 2
    return scaled[..., top : top + size, left : left + size]


def squash_to_square(images: Tensor, size: int, mode: str = "bicubic") -> Tensor:
    """Both sides to `size`, whatever the aspect ratio: `(B, 3, size, size)`. SigLIP's transform."""
    return resize_bytes(images, size, size, mode)


def pad_to_square(
    images: Tensor, size: int, mode: str = "bicubic", *, resizer: Callable[[Tensor, int, int, str], Tensor] = resize
) -> Tensor:
    """Long side to `size`, then black on both sides of the short one: `(B, 3, size, size)`. HPSv2's transform.

    The published code resizes float tensors, so nothing is rounded or clamped here unless `resizer` is `resize_bytes`.
    Of an odd margin, the larger half is right or below.
    """
    scale = size / max(images.shape[-2:])
    height, width = (max(1, round(side * scale)) for side in images.shape[-2:])
    left, top = (size - width) // 2, (size - height) // 2
    margins = (left, size - width - left, top, size - height - top)
    return functional.pad(resizer(images, height, width, mode), margins)


@dataclass(frozen=True)
class Preprocess:
    """The transform from images to the input of one vision model.

    Attributes:
        size: Side of the square that the model reads, in pixels.
        mean: Subtracted per channel, after fitting.
        std: Divided by per channel.
        fit: How an image becomes a square: one of the functions above.
        mode: Interpolation, bicubic or bilinear.
    """

    size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    fit: Fit = crop_to_square
    mode: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """Model input `(B, 3, size, size)` of images `(B, 3, H, W)` in [0, 1], in float32 (float64 stays)."""
        pixels = self.fit(images.to(torch.promote_types(images.dtype, torch.float32)), self.size, self.mode)
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std
