"""Features of images for rewards that compare them: an encoder of transformers, or plain pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffalign.rewards.vlm.pixels import pixel_values
from diffalign.rewards.weights import from_pretrained, load_model

PIXELS = "pixels"
SIDE = 8

Encoder = Callable[[Tensor], Tensor]
"""Images `(N, 3, H, W)` in [0, 1] -> features `(N, D)`."""


class PixelFeatures(nn.Module):
    """Colours of an 8 x 8 mosaic, minus grey: `(N, 192)`. Without weights; sees layout and colour, no meaning."""

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, 192)` of images `(N, 3, H, W)`."""
        return functional.adaptive_avg_pool2d(images, SIDE).flatten(1) - 0.5


class ImageEncoder(nn.Module):
    """The pooled feature of a vision model: CLIP's or SigLIP's image embedding, DINO's class token."""

    def __init__(self, source: str, *, argument: str = "features", batch_size: int = 32) -> None:
        """Loads model and image processor.

        Args:
            source: Hub id or local folder.
            argument: What the user sets to name another one.
            batch_size: Images that the model sees at once.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If the weights are not those of the model.
        """
        from transformers import AutoImageProcessor, AutoModel

        super().__init__()
        self._processor = from_pretrained(AutoImageProcessor, source, "preprocessor_config.json", argument=argument)
        self.model: Any = load_model(AutoModel, source, argument=argument)
        self._batch_size = batch_size

    def forward(self, images: Tensor) -> Tensor:
        """Features `(N, D)`, float32 at least, of images `(N, 3, H, W)` in [0, 1], on the model's device."""
        weight = next(self.model.parameters())
        parts = []
        with torch.autocast(weight.device.type, enabled=False):
            for batch in images.to(weight.device).split(self._batch_size):
                pixels = pixel_values(batch, self._processor).to(weight.dtype)
                parts.append(_pooled(self.model, pixels))
        features = torch.cat(parts)
        return features.to(images.device, torch.promote_types(features.dtype, torch.float32))


def _pooled(model: Any, pixels: Tensor) -> Tensor:
    """One vector per image."""
    if hasattr(model, "get_image_features"):
        output = model.get_image_features(pixel_values=pixels)
        return output if isinstance(output, Tensor) else output.pooler_output
    states: Tensor = model(pixel_values=pixels).last_hidden_state
    return states[:, 0] if states.ndim == 3 else states.flatten(2).mean(2)


def encoder(source: str, *, argument: str = "features") -> nn.Module:
    """The encoder of a name: `pixels`, or a hub id or folder.

    Raises:
        MissingWeights: If files cannot be found.
        ValueError: If the weights are not those of the model.
    """
    return PixelFeatures() if source == PIXELS else ImageEncoder(source, argument=argument)
