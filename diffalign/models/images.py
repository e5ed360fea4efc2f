"""The image side of an adapter: latents to images in [0, 1] and back through the pipeline's VAE."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor


class Images:
    """Decoding and encoding; `Adapter` has the rest.

    Attributes:
        pipeline: the pipeline.
        device: where the VAE runs.
        dtype: storage dtype of latents.
        height: image height in pixels.
        width: image width in pixels.
        frames: video frames, 1 for images.
    """

    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    height: int
    width: int
    frames: int

    vae_shift: ClassVar[bool] = True
    """The pipeline adds the VAE's shift_factor before decoding; some never do, whatever the VAE's config says."""
    video: ClassVar[bool] = False
    """The family draws frames; with more than one, images have a frame axis."""

    @property
    def vae_factor(self) -> int:
        """Image pixels per side of a latent pixel."""
        return int(self.pipeline.vae_scale_factor)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(3, height, width) of a decoded image, (F, 3, height, width) of a video."""
        return (self.frames, 3, self.height, self.width) if self.frames > 1 else (3, self.height, self.width)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, *latent_shape) latents -> (B, *image_shape) in [0, 1], differentiable."""
        vae = self.pipeline.vae
        decoded = self._decoded(self._denormalised(latents.to(vae.dtype)))
        return (self._image(decoded).float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(
        self, images: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Clean latents of images, for offline data.

        Args:
            images: (B, *image_shape) in [0, 1].
            sample: draw from the VAE's posterior, as training scripts do; else its mode, which is deterministic.
            generator: of the draw.

        Returns:
            (B, *latent_shape) in the storage dtype.

        Raises:
            ValueError: images of another size.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images have the shape {tuple(images.shape[1:])}, the policy draws {self.image_shape}")
        vae = self.pipeline.vae
        encoded = vae.encode(self._pixels(images.to(self.device, vae.dtype) * 2 - 1))
        if hasattr(encoded, "latent_dist"):
            posterior = encoded.latent_dist
            latents = posterior.sample(generator) if sample else posterior.mode()
        else:
            latents = encoded.latent  # AutoencoderDC is deterministic
        return self._normalised(latents).to(self.dtype)

    # --- what a family may write -------------------------------------------------------------------------------------

    def _denormalised(self, latents: Tensor) -> Tensor:
        """What the VAE decodes."""
        return latents / self.pipeline.vae.config.scaling_factor + self._shift

    def _normalised(self, latents: Tensor) -> Tensor:
        """The inverse of `_denormalised`."""
        return (latents - self._shift) * self.pipeline.vae.config.scaling_factor

    def _decoded(self, latents: Tensor) -> Tensor:
        """The VAE's output."""
        output: Tensor = self.pipeline.vae.decode(latents, return_dict=False)[0]
        return output

    def _image(self, decoded: Tensor) -> Tensor:
        """(B, 3, H, W), or (B, F, 3, H, W) for video, from the VAE's output."""
        return decoded

    def _pixels(self, images: Tensor) -> Tensor:
        """The inverse of `_image`: what the VAE encodes."""
        return images

    @property
    def _shift(self) -> float:
        return float(self.pipeline.vae.config.get("shift_factor") or 0.0) if self.vae_shift else 0.0
