"""The one reader of image files: any bit depth, any transparency, turned upright."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

if TYPE_CHECKING:  # a folder is listed without them
    from torch import Tensor

FORMATS = frozenset("AVIF BMP DIB GIF JPEG JPEG2000 PNG PPM QOI TGA TIFF WEBP".split())
"""Formats of photographs and renderings that Pillow reads; of moving images the first frame is taken."""

TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Numbers of two TIFF tags, and a value of the second."""


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes of the formats that `read_image` takes with the Pillow that is installed."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in FORMATS and name in Image.OPEN)


def read_image(path: str | Path) -> Tensor:
    """An image as rewards see it.

    Grey levels of more than 8 bits are scaled by their depth; colour of more than 8 bits is cut to 8 by Pillow.
    Transparent pixels are composed on white. The picture is turned as its EXIF orientation says.

    Args:
        path: a file of one of `FORMATS`.

    Returns:
        `(3, H, W)` float32 in [0, 1], RGB.

    Raises:
        ValueError: absent, damaged, or a file whose pixels have no stated range.
    """
    try:
        with Image.open(path) as opened:
            scale = _scale(opened)
            upright = ImageOps.exif_transpose(opened)
            return _colour(upright) if scale is None else _grey(upright, *scale)
    except (Exception, Image.DecompressionBombError) as error:  # a damaged file raises whatever its decoder stumbles on
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({reason})") from error


def _colour(picture: Image.Image) -> Tensor:
    """An 8-bit picture of any mode, on white."""
    import numpy as np
    import torch

    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _grey(picture: Image.Image, white: float, inverted: bool) -> Tensor:
    """A picture of one deep channel; `white` is its largest value."""
    import numpy as np
    import torch

    pixels = np.asarray(picture).astype(np.float64)
    values = torch.from_numpy(pixels / white).float()
    if not values.isfinite().all() or values.min() < 0 or values.max() > 1:
        raise ValueError(f"pixels from {pixels.min():g} to {pixels.max():g}, where 0 to {white:g} is the range")
    values = 1 - values if inverted else values
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        values[torch.from_numpy(pixels == clear)] = 1.0
    return values.expand(3, *values.shape).clone()


def _scale(opened: Image.Image) -> tuple[float, bool] | None:
    """Value of white, and whether 0 is white, for pictures of one channel deeper than 8 bits; else None."""
    tags: Any = getattr(opened, "tag_v2", {})
    inverted = tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO
    if opened.mode.startswith("I;16"):
        return 2.0 ** tags.get(TIFF_BITS, (16,))[0] - 1, inverted
    if opened.mode == "I" and opened.format in ("PNG", "PPM"):  # 16 bits in a wider container
        return 2.0**16 - 1, False
    if opened.mode == "I":
        raise ValueError("32-bit whole numbers have no stated range: save it with 8 or 16 bits")
    return (1.0, inverted) if opened.mode == "F" else None
