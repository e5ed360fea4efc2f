"""CLIP models of open_clip: a name with a pretrained tag or file, a local folder, or a hub repository in its format."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffalign.naming import nearest
from diffalign.rewards import weights
from diffalign.rewards.hub import cache_without_network
from diffalign.rewards.images import Fit, Preprocess, crop_to_square, pad_to_square, resize_bytes, squash_to_square

LOCAL, HUB = "local-dir:", "hf-hub:"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.safetensors")


def import_open_clip() -> Any:
    """open_clip, which the base installation does not include.

    Raises:
        ValueError: If it is not installed; names the extra.
    """
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise ValueError(
            f"this reward needs open_clip ({error}): pip install 'diffalign[clip]' (or open_clip_torch)"
        ) from error
    return open_clip


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops open_clip's log message that the model has random weights: they are loaded next, strictly."""

    def keep(record: logging.LogRecord) -> bool:
        return "weights" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


FITS: dict[str, Fit] = {
    "shortest": crop_to_square,
    "squash": squash_to_square,
    "longest": partial(pad_to_square, resizer=resize_bytes),
}
"""`resize_mode` of open_clip -> its transform, which works on 8-bit images."""


class OpenClip(nn.Module):
    """A model of open_clip, its tokenizer and its transform."""

    def __init__(
        self,
        name: str,
        *,
        checkpoint: str | Path | None = None,
        fit: Fit | None = None,
        quick_gelu: bool = False,
    ) -> None:
        """Builds the architecture and loads a checkpoint into it.

        Args:
            name: Architecture of open_clip (`ViT-H-14`), `local-dir:FOLDER` or `hf-hub:OWNER/NAME`.
            checkpoint: The weights' file.
            fit: How an image becomes a square, before CLIP's normalisation; default the model's transform.
            quick_gelu: The weights were trained with OpenAI's approximate GELU.

        Raises:
            ValueError: If open_clip is not installed, does not know the name, or the checkpoint is another model's.
        """
        open_clip = import_open_clip()
        super().__init__()
        options: dict[str, Any] = {"pretrained_image": False, "pretrained_text": False}
        if quick_gelu:
            options["force_quick_gelu"] = True
        with _quiet(), nullcontext() if name.startswith(LOCAL) else cache_without_network():
            self.model = open_clip.create_model(name, load_weights=False, **options)
            self.tokenizer = open_clip.get_tokenizer(name)
        if checkpoint is not None:
            load_checkpoint(self.model, checkpoint)
        self.preprocess = preprocess_from(self.model.visual.preprocess_cfg, name)
        if fit is not None:
            self.preprocess = Preprocess(self.preprocess.size, fit=fit)
        self.context = int(self.tokenizer.context_length)
        self._padding = int(self.tokenizer([""])[0, -1])

    @property
    def logit_scale(self) -> float:
        """The trained factor of the cosine."""
        return float(self.model.logit_scale.detach().double().exp())

    def image_features(self, images: Tensor) -> Tensor:
        """Embeddings `(B, D)`, not normalised, of images `(B, 3, H, W)` in [0, 1]."""
        features: Tensor = self.model.encode_image(self.preprocess(images).to(self.model.logit_scale.dtype))
        return features

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings `(B, D)`, not normalised; texts are cut off at `context` tokens."""
        features: Tensor = self.model.encode_text(self.tokenizer(list(texts)).to(self.model.logit_scale.device))
        return features

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than are read: with room for one more, is it taken?"""
        longer: Tensor = self.tokenizer(list(texts), context_length=self.context + 1)
        return [bool(end != self._padding) for end in longer[:, -1]]


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Loads a file into a model of open_clip, which reads several formats.

    Raises:
        ValueError: If names or shapes differ; lists the first differences.
    """
    weights.read(path)  # refuses damaged files and files of objects, with our messages
    try:
        found = import_open_clip().load_checkpoint(model, str(path), strict=False)
    except RuntimeError as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[1 : 1 + weights.SHOWN])
        raise ValueError(f"{path} is not the checkpoint of this model: {lines}") from error
    weights.compare_keys(found.missing_keys, found.unexpected_keys, {}, path)


def preprocess_from(config: Mapping[str, Any], source: object) -> Preprocess:
    """The transform of an `open_clip_config.json`.

    Raises:
        ValueError: If it is none of open_clip's three resizes to a square, or pads with another colour than black.
    """
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    fit = FITS.get(config["resize_mode"])
    if fit is None or len(sides) != 1 or config["interpolation"] not in ("bicubic", "bilinear") or config["fill_color"]:
        raise ValueError(
            f"the transform of {source} is not supported: {dict(config)}; valid: a square, {', '.join(FITS)}, bicubic "
            "or bilinear, black padding"
        )
    return Preprocess(sides.pop(), tuple(config["mean"]), tuple(config["std"]), fit, config["interpolation"])


def from_folder(folder: str | Path) -> OpenClip:
    """A model from a folder with `open_clip_config.json`, weights and, if it contains one, a tokenizer."""
    return OpenClip(f"{LOCAL}{folder}", checkpoint=weights.locate_any(str(folder), FILES, folder, argument="model"))


def from_hub(hub_id: str) -> OpenClip:
    """A model from a repository in open_clip's format."""
    weights.locate(hub_id, "open_clip_config.json", argument="model")
    return OpenClip(f"{HUB}{hub_id}", checkpoint=weights.locate_any(hub_id, FILES, argument="model"))


def from_tag(name: str, pretrained: str) -> OpenClip:
    """An architecture of open_clip with a pretrained tag, or with a file of weights.

    Raises:
        MissingWeights: If the weights cannot be found.
        ValueError: If open_clip does not know the name, or the tag for it.
    """
    open_clip = import_open_clip()
    check_architecture(name)
    if os.path.isfile(pretrained):
        return OpenClip(name, checkpoint=pretrained)
    tag = copy.deepcopy(open_clip.get_pretrained_cfg(name, pretrained))
    if not tag or not tag.get("hf_hub"):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ValueError(f"pretrained={pretrained!r} of {name}: no file of that name, and no tag; tags: {tags}")
    hub_id, file = os.path.split(tag["hf_hub"])
    path = weights.locate_any(hub_id, (file,) if file else FILES, argument="pretrained")
    transform = {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag}
    model = OpenClip(name, checkpoint=path, quick_gelu=bool(tag.get("quick_gelu")))
    model.preprocess = preprocess_from({**model.model.visual.preprocess_cfg, **transform}, name)
    return model


def check_architecture(name: str) -> None:
    """Raises a ValueError that lists the nearest names if open_clip does not know one."""
    known = import_open_clip().list_models()
    if name not in known:
        raise ValueError(f"open_clip has no architecture {name!r}{nearest(name, known, count=3)}")
