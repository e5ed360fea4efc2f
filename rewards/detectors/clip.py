"""CLIP as a judge: GenEval's colour classifier, and the cosine of image and text of T2I-CompBench.

Both benchmarks use OpenAI's weights, ViT-L/14 for colours and ViT-B/32 for the cosine, here from transformers'
conversions, which compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffalign.evaluation.judges import ColorNamer, Detection, Similarity
from diffalign.rewards.clip_models import ClipModel, load_clip
from diffalign.rewards.detectors._frozen import Placement, file_hash, judge_label, read_placement
from diffalign.rewards.text_features import LengthWarning, TextFeatures

COLOR_HUB = "openai/clip-vit-large-patch14"
SIMILARITY_HUB = "openai/clip-vit-base-patch32"
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {label}", "a photo of a {color}-colored {label}", "a photo of a {color} object")
BACKGROUND = 0x99 / 255
"""Grey level that GenEval paints over everything outside an object's mask."""


class ClipJudge:
    """A judge with a CLIP model."""

    def __init__(self, model: ClipModel, place: Placement, source: str) -> None:
        """Wraps a loaded model."""
        self._model, self._place, self._source = model, place, source

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model; its precision is an option of its own and stays. Features of texts are made anew."""
        _module(self._model).to(device)
        self.forget()
        return self

    def forget(self) -> None:
        """Drops features that are on another device."""


class ClipColors(ClipJudge):
    """Names the colour of an object by zero-shot classification of its crop."""

    def __init__(self, model: ClipModel, place: Placement, source: str) -> None:
        """Wraps a loaded model; see `color`."""
        super().__init__(model, place, source)
        self._classes: dict[str, Tensor] = {}
        self.name = judge_label("clip", source, COLOR_HUB)

    def forget(self) -> None:
        """Drops the classifiers."""
        self._classes.clear()

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result."""
        return {"name": self.name, **_described(self._model, self._source)}

    @torch.no_grad()
    def __call__(self, images: Tensor, detections: Sequence[Sequence[Detection]]) -> list[list[str | None]]:
        """Colour names; see `diffalign.evaluation.judges.ColorNamer`. A box without a pixel has none (None)."""
        return [
            [self._one(crop_object(image, one), one.label) for one in objects]
            for image, objects in zip(images, detections, strict=True)
        ]

    def _one(self, crop: Tensor, label: str) -> str | None:
        """The colour of one crop `(3, h, w)`; crops differ in size, so each is alone in its forward pass."""
        if not crop.numel():
            return None
        return COLORS[int((self._classifier(label) @ _image_features(self._model, crop[None])[0]).argmax())]

    def _classifier(self, label: str) -> Tensor:
        """`(10, D)`: per colour the normalised mean of the normalised features of its three texts."""
        if label not in self._classes:
            texts = [template.format(color=color, label=label) for color in COLORS for template in TEMPLATES]
            features = functional.normalize(self._model.text_features(texts).float(), dim=-1)
            means = features.view(len(COLORS), len(TEMPLATES), -1).mean(1)
            self._classes[label] = functional.normalize(means, dim=-1)
        return self._classes[label]


def color(model: str = COLOR_HUB, **placement: Any) -> ColorNamer:
    """Loads GenEval's colour classifier.

    Args:
        model: What `diffalign.rewards.clip_models.load_clip` takes: hub id, local folder, `shapes-clip`.
        **placement: `device`, `dtype`, `batch_size`; see `Placement`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: If an option is unknown or out of range, or the file is another model's.
    """
    place = read_placement("clip", placement)
    return ClipColors(_loaded(load_clip(model), place), place, model)


class ClipSimilarity(ClipJudge):
    """The cosine of image and text."""

    def __init__(self, model: ClipModel, place: Placement, source: str) -> None:
        """Wraps a loaded model; see `similarity`."""
        super().__init__(model, place, source)
        self._texts = TextFeatures(lambda texts: functional.normalize(model.text_features(texts).float(), dim=-1))
        self._warn = LengthWarning("clip", model.context)
        self.name = judge_label("clip", source, SIMILARITY_HUB)

    def forget(self) -> None:
        """Drops the texts."""
        self._texts.clear()

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result."""
        return {"name": self.name, **_described(self._model, self._source)}

    @torch.no_grad()
    def __call__(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Cosines `(B,)`; see `diffalign.evaluation.judges.Similarity`."""
        self._warn(texts, self._model.too_long(texts))
        batches = images.split(self._place.batch_size)
        features = torch.cat([_image_features(self._model, batch) for batch in batches])
        return (features * self._texts(texts)).sum(-1).to(images.device)


def similarity(model: str = SIMILARITY_HUB, **placement: Any) -> Similarity:
    """Loads the judge; arguments and errors as for `color`. Texts beyond 77 tokens are cut, with a warning."""
    place = read_placement("clip", placement)
    return ClipSimilarity(_loaded(load_clip(model), place), place, model)


def crop_object(image: Tensor, one: Detection) -> Tensor:
    """An object `(3, h, w)` out of its image `(3, H, W)`, grey where its mask is not; the box alone without a mask.

    Box edges are rounded to whole pixels and cut to the image.
    """
    height, width = image.shape[-2:]
    x0, y0, x1, y1 = (round(value) for value in one.box)
    if one.mask is not None:
        image = torch.where(one.mask.to(image.device), image, BACKGROUND)
    return image[:, max(y0, 0) : max(min(y1, height), 0), max(x0, 0) : max(min(x1, width), 0)]


def _image_features(model: ClipModel, images: Tensor) -> Tensor:
    """`(B, D)` normalised, on the model's device."""
    device = next(iter(_module(model).parameters())).device
    return functional.normalize(model.image_features(images.to(device)).float(), dim=-1)


def _module(model: ClipModel) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ValueError(f"a CLIP model is a torch module, got {type(model).__name__}")
    return model


def _loaded(model: ClipModel, place: Placement) -> ClipModel:
    """The model in its place."""
    if place.revision is not None:
        raise ValueError("clip takes no revision: point `model` at a local copy of the one you want")
    device = place.device or ("cuda" if torch.cuda.is_available() else "cpu")
    _module(model).eval().requires_grad_(False).to(device, getattr(torch, place.dtype))
    return model


def _described(model: ClipModel, source: str) -> dict[str, str]:
    """Source, revision and precision."""
    inner = getattr(model, "model", None)
    commit = getattr(getattr(inner, "config", None), "_commit_hash", None)
    dtype = next(iter(_module(model).parameters())).dtype
    return {"model": source, "revision": commit or file_hash(source), "dtype": str(dtype).removeprefix("torch.")}
