"""Images to the pixel inputs of any vision model of transformers, with a gradient and in the images' own precision.

The colours are ours: rescaling and normalising by the published numbers, in the dtype of the images. The geometry
(resizing, cropping, tiling, patches) is the model's own image processor, whose torch form keeps the gradient. Affine
colours and weights that sum to one commute, so the order does not matter, except where a processor pads with black:
there it does both, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BYTE = 255.0


def pads(processor: Any) -> bool:
    """Whether an image processor pads with black, so that colours are normalised after it."""
    return bool(getattr(processor, "do_pad", False) or getattr(processor, "do_image_splitting", False))


def coloured(images: Tensor, processor: Any) -> Tensor:
    """Images in [0, 1] rescaled and normalised as the processor would, `(B, 3, H, W)` in their dtype, float32 at least.

    Args:
        images: `(B, 3, H, W)` in [0, 1].
        processor: An image processor of transformers.
    """
    pixels = images.to(torch.promote_types(images.dtype, torch.float32))
    if processor.do_rescale:
        pixels = pixels * (BYTE * processor.rescale_factor)
        pixels = pixels - 1 if getattr(processor, "rescale_offset", False) else pixels
    else:
        pixels = pixels * BYTE
    if processor.do_normalize:
        mean, std = (pixels.new_tensor(v).view(-1, 1, 1) for v in (processor.image_mean, processor.image_std))
        pixels = (pixels - mean) / std
    if getattr(processor, "include_top", False):  # EfficientNet divides by its deviation once more
        pixels = pixels / pixels.new_tensor(processor.image_std).view(-1, 1, 1)
    return pixels


def prepare(images: Tensor, processor: Any) -> tuple[Tensor, dict[str, Any]]:
    """The images and keyword arguments for a call of the processor.

    Args:
        images: `(B, 3, H, W)` in [0, 1].
        processor: An image processor of transformers, or what wraps one.

    Returns:
        Images `(B, 3, H, W)`, and the processor's keyword arguments for them.

    Raises:
        ValueError: If the processor works in PIL, which ends the gradient.
    """
    if "Torchvision" not in "".join(base.__name__ for base in type(processor).__mro__):
        raise ValueError(
            f"{type(processor).__name__} works in PIL, which carries no gradient; install torchvision "
            "(pip install 'diffalign[vlm]')"
        )
    if pads(processor):
        return images.float() * BYTE, {}
    off: dict[str, Any] = {"do_rescale": False, "do_normalize": False}
    if hasattr(processor, "include_top"):
        off["include_top"] = False
    return coloured(images, processor), off


def pixel_values(images: Tensor, processor: Any) -> Tensor:
    """Pixel input of an image encoder, `(B, 3, h, w)`, for processors that make one tensor per image.

    Args:
        images: `(B, 3, H, W)` in [0, 1].
        processor: An image processor of transformers.
    """
    prepared, options = prepare(images, processor)
    pixels: Tensor | Sequence[Tensor] = processor(images=list(prepared), return_tensors="pt", **options)["pixel_values"]
    return pixels if isinstance(pixels, Tensor) else torch.stack(list(pixels))
