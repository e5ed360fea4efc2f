"""CLIP models of transformers (CLIP, SigLIP, and what else has image and text features), as a folder or a hub id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffalign.rewards import weights
from diffalign.rewards.images import Fit, Preprocess, crop_to_square_floor, squash_to_square

MODES = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers of the interpolations that have an antialiased tensor form."""
TEXT_TOWER = (r"^text_model\.", r"^text_projection\.", r"^logit_scale$")


class TransformersVision(nn.Module):
    """The image half of a CLIP model alone, with its projection."""

    def __init__(self, source: str | Path, *, fit: Fit | None = None, argument: str = "path") -> None:
        """Loads the image half from a CLIP checkpoint: hub id or folder; `fit` as for `TransformersClip`."""
        from transformers import CLIPConfig, CLIPVisionModelWithProjection

        super().__init__()
        config = weights.from_pretrained(CLIPConfig, source, "config.json", argument=argument)
        config.vision_config.projection_dim = config.projection_dim  # the half alone would take a default instead
        self.model = weights.load_model(
            CLIPVisionModelWithProjection, source, argument=argument, ignore=TEXT_TOWER, config=config.vision_config
        )
        self.preprocess = read_preprocess(source, argument)
        if fit is not None:
            self.preprocess = replace(self.preprocess, fit=fit)

    def image_features(self, images: Tensor) -> Tensor:
        """Embeddings `(B, D)`, not normalised, of images `(B, 3, H, W)` in [0, 1]."""
        pixels = self.preprocess(images).to(self.model.dtype)
        embeddings: Tensor = self.model(pixel_values=pixels).image_embeds
        return embeddings


class TransformersClip(nn.Module):
    """A model with `get_image_features` and `get_text_features`, its tokenizer and its transform."""

    def __init__(
        self,
        source: str | Path,
        *,
        tokenizer: str | Path | None = None,
        fit: Fit | None = None,
        argument: str = "path",
    ) -> None:
        """Loads model, tokenizer and transform.

        Args:
            source: Hub id or folder of the model.
            tokenizer: Hub id or folder of the tokenizer; default the model's.
            fit: How an image becomes a square, before CLIP's normalisation; default the published transform.
            argument: What the user sets to name a local folder.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If the checkpoint is another model's, or gives no features of images and text.
        """
        from transformers import AutoModel, AutoTokenizer

        super().__init__()
        self.model = weights.load_model(AutoModel, source, argument=argument)
        if not hasattr(self.model, "get_image_features") or not hasattr(self.model, "get_text_features"):
            raise ValueError(f"{source} is a {type(self.model).__name__}, which has no common space of image and text")
        where = source if tokenizer is None else tokenizer
        self.tokenizer = weights.from_pretrained(AutoTokenizer, where, "tokenizer.json", argument=argument)
        side = int(self.model.config.vision_config.image_size)
        self.preprocess = Preprocess(side, fit=fit) if fit else read_preprocess(source, argument)
        limit = int(self.model.config.text_config.max_position_embeddings)
        self.context = min(limit, int(self.tokenizer.model_max_length))

    @property
    def logit_scale(self) -> float:
        """The trained factor of the cosine."""
        return float(self.model.logit_scale.detach().double().exp())

    def image_features(self, images: Tensor) -> Tensor:
        """Embeddings `(B, D)`, not normalised, of images `(B, 3, H, W)` in [0, 1]."""
        return _embedding(self.model.get_image_features(pixel_values=self.preprocess(images).to(self.model.dtype)))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings `(B, D)`, not normalised; texts are cut off at `context` tokens."""
        options = {"padding": "max_length", "truncation": True, "max_length": self.context, "return_tensors": "pt"}
        return _embedding(self.model.get_text_features(**self.tokenizer(list(texts), **options).to(self.model.device)))

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than are read."""
        return [len(ids) > self.context for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]


def _embedding(output: Any) -> Tensor:
    """Features come as a tensor, or inside an output, depending on the version of transformers."""
    embedding: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return embedding


def read_preprocess(source: str | Path, argument: str = "path") -> Preprocess:
    """The transform that is published beside a model, as tensor operations.

    Raises:
        MissingWeights: If there is none.
        ValueError: If it has steps other than a resize to a square, a centre crop and a normalisation.
    """
    config = weights.from_pretrained(_Config, source, "preprocessor_config.json", argument=argument)
    return preprocess_from(config, source)


class _Config:
    """Reads the configuration of an image processor without making one, which would need torchvision."""

    @staticmethod
    def from_pretrained(source: str) -> dict[str, Any]:
        from transformers.image_processing_base import ImageProcessingMixin

        config: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(source)[0]
        return config


def preprocess_from(config: Mapping[str, Any], source: object) -> Preprocess:
    """The transform of a `preprocessor_config.json`."""
    size, crop = config.get("size", 224), config.get("crop_size", 224)
    cropped = bool(config.get("do_center_crop", False))
    crop = set(crop.values()) if isinstance(crop, Mapping) else {crop}
    sides = set(size.values()) if isinstance(size, Mapping) else {size}
    short_side = not isinstance(size, Mapping) or "shortest_edge" in size
    mode = MODES.get(config.get("resample", 3))
    if mode is None or len(sides) != 1 or (cropped and crop != sides) or (short_side and not cropped):
        raise ValueError(
            f"the transform of {source} is not one of: short side and centre crop to one size, or resize to a square, "
            f"bicubic or bilinear; got size {size}, crop {config.get('crop_size')}, resample {config.get('resample')}"
        )
    return Preprocess(
        size=int(sides.pop()),
        mean=tuple(config["image_mean"]),
        std=tuple(config["image_std"]),
        fit=crop_to_square_floor if short_side else squash_to_square,
        mode=mode,
    )
