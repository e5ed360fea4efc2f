"""Similarity of image and prompt under a CLIP model: the cosine, or CLIPScore (Hessel et al. 2021, arXiv 2104.08718).

The cosine of an image and its prompt depends on the model, so the reward's name contains the model. Three scalings:
`cosine` as it is, `percent` (times 100, as tables print it), `clipscore` (the paper's: 2.5 max(cosine, 0) of the prompt
behind "A photo depicts "; the released code is jmhessel/clipscore, with ViT-B/32).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffalign.naming import unknown
from diffalign.rewards.clip_models import ClipModel, load_clip
from diffalign.rewards.text_features import LengthWarning, TextFeatures
from diffalign.rewards.vision import BATCH_SIZE, VisionReward

DEFAULT = "openai/clip-vit-large-patch14"


def cosine(value: Tensor) -> Tensor:
    """The cosine itself, `(B,)` in [-1, 1]."""
    return value


def percent(value: Tensor) -> Tensor:
    """A hundred times the cosine, `(B,)`."""
    return 100 * value


def clipscore(value: Tensor) -> Tensor:
    """The paper's 2.5 max(cosine, 0), `(B,)`; no gradient below 0."""
    return 2.5 * value.clamp(min=0)


class Scaling(NamedTuple):
    """How the cosine becomes a score: function, range, and the text put before the prompt."""

    function: Callable[[Tensor], Tensor]
    range: tuple[float, float]
    prefix: str = ""


SCALINGS: dict[str, Scaling] = {
    "cosine": Scaling(cosine, (-1.0, 1.0)),
    "percent": Scaling(percent, (-100.0, 100.0)),
    "clipscore": Scaling(clipscore, (0.0, 2.5), "A photo depicts "),
}


class SimilarityReward(VisionReward):
    """The cosine of each image and its prompt, times a factor."""

    def __init__(
        self,
        model: ClipModel,
        *,
        factor: float = 1.0,
        prefix: str = "",
        batch_size: int = BATCH_SIZE,
        checkpoint: bool = False,
    ) -> None:
        """Wraps a model.

        Args:
            model: Images and texts to one space.
            factor: Multiplies the cosine.
            prefix: Put before every prompt.
            batch_size: See `VisionReward`.
            checkpoint: See `VisionReward`.
        """
        if not isinstance(model, nn.Module):
            raise ValueError(f"a CLIP model is a torch module, got {type(model).__name__}")
        super().__init__(model, batch_size=batch_size, checkpoint=checkpoint)
        self._model = model
        self._factor, self._prefix = factor, prefix
        self._texts = TextFeatures(self._encode)
        self._warn = LengthWarning(self.name, model.context)

    def _encode(self, prompts: list[str]) -> Tensor:
        """Normalised embeddings `(n, D)` of prompts."""
        texts = [self._prefix + prompt for prompt in prompts]
        self._warn(prompts, self._model.too_long(texts))
        return _direction(self._model.text_features(texts))

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scaled cosines `(n,)` of images `(n, 3, H, W)` in [0, 1] and prompts."""
        return self._factor * (_direction(self._model.image_features(images)) * self._texts(prompts)).sum(-1)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SimilarityReward:
        """Moves the model; remembered prompts are encoded anew."""
        self._texts.clear()
        return super().to(device, dtype)


def _direction(embedding: Tensor) -> Tensor:
    """Embeddings `(n, D)` at length 1, in float32 (float64 stays): a half loses the score's third digit."""
    return functional.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=-1)


class ClipReward(SimilarityReward):
    """Similarity of image and prompt under any CLIP model."""

    licence = "the model's (OpenAI's CLIP: MIT)"
    range = (-1.0, 1.0)
    weights: tuple[tuple[str, str], ...] = (
        (DEFAULT, "model.safetensors"),
        (DEFAULT, "tokenizer.json"),
        (DEFAULT, "preprocessor_config.json"),
    )

    def __init__(
        self,
        model: str | Path = DEFAULT,
        pretrained: str | Path | None = None,
        scaling: str = "cosine",
        *,
        batch_size: int = BATCH_SIZE,
        checkpoint: bool = False,
    ) -> None:
        """Loads a model.

        Args:
            model: Hub id or folder of a model of transformers; `shapes-clip`, which comes with the package; a folder
                with `open_clip_config.json`, `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or an architecture of open_clip
                together with `pretrained`.
            pretrained: Tag or file of weights for an architecture of open_clip.
            scaling: cosine, percent or clipscore; see the module. The paper's CLIPScore is
                `model="openai/clip-vit-base-patch32", scaling="clipscore"`.
            batch_size: See `VisionReward`.
            checkpoint: See `VisionReward`.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If an argument is outside its choices, or the checkpoint is another model's.
        """
        if scaling not in SCALINGS:
            raise unknown("clip scaling", scaling, SCALINGS)
        self._scale, self.range, prefix = SCALINGS[scaling]
        self.name = "_".join(["clip", *_label(model, pretrained), *([] if scaling == "cosine" else [scaling])])
        if (str(model), pretrained) != (DEFAULT, None):
            self.weights = ()
        super().__init__(load_clip(model, pretrained), prefix=prefix, batch_size=batch_size, checkpoint=checkpoint)

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scaled cosines `(n,)`."""
        return self._scale(super().score_batch(images, prompts))


def _label(model: str | Path, pretrained: str | Path | None) -> list[str]:
    """The model in a reward's name: the last part of a path or hub id, and the tag."""
    parts = [model] if pretrained is None else [model, pretrained]
    return [Path(str(part)).name if "/" in str(part) else str(part) for part in parts]
