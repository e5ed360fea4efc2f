"""File size under JPEG as a reward, compressibility and incompressibility (DDPO, Black et al. 2023, arXiv 2305.13301).

As in the paper's released code: kilobytes (1 kB = 1000 bytes) at quality 95, negative for compressibility. A cheap
reward with a known optimum (flat images, or noise), good for seeing whether a trainer moves.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.contract import check_contract
from diffalign.rewards.images import to_uint8

Kind = Literal["compressibility", "incompressibility"]
SIGNS: dict[str, float] = {"compressibility": -1.0, "incompressibility": 1.0}


def jpeg_kilobytes(image: Tensor, quality: int) -> float:
    """Size of one image `(3, H, W)` in [0, 1] as a JPEG file, in kB."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image).permute(1, 2, 0).contiguous().numpy()).save(buffer, format="JPEG", quality=quality)
    return buffer.tell() / 1000


class JpegReward(Reward):
    """Size of the image as a JPEG: `compressibility` rewards small files, `incompressibility` large ones."""

    def __init__(self, kind: Kind = "compressibility", quality: int = 95) -> None:
        """Chooses the direction.

        Args:
            kind: compressibility (minus the size) or incompressibility (the size), both in kB.
            quality: JPEG quality, 1 to 100.

        Raises:
            ValueError: If either is outside its choices.
        """
        if kind not in SIGNS:
            raise ValueError(f"jpeg kind {kind!r} is unknown; valid: {', '.join(SIGNS)}")
        if not 1 <= quality <= 100:
            raise ValueError(f"jpeg quality is 1 to 100, got {quality}")
        self.name = f"jpeg_{kind}" if quality == 95 else f"jpeg_{kind}_q{quality}"
        self._sign = SIGNS[kind]
        self._quality = quality

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Signed sizes `(B,)` in kB of images `(B, 3, H, W)` in [0, 1]."""
        sizes = [self._sign * jpeg_kilobytes(image, self._quality) for image in images]
        return torch.tensor(sizes, dtype=torch.float32, device=images.device)

    def self_test(self) -> None:
        """Contract, and the order of a flat image and noise."""
        noise = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        images = torch.stack([torch.full_like(noise[0], 0.5), *noise])
        scores = check_contract(self, images, ["a flat image", "noise", "noise"], [{}, {}, {}])
        if not (self._sign * (scores[1:] - scores[0]) > 0).all():
            raise ValueError(f"{self.name}: noise must make the larger file, got {scores.tolist()}")


def incompressibility(quality: int = 95) -> JpegReward:
    """The reward that grows with the file."""
    return JpegReward("incompressibility", quality)
