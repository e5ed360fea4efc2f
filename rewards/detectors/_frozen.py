"""The frozen model behind a judge: how it is loaded, where and in which precision it runs, and in what batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from diffalign.naming import unknown
from diffalign.rewards import weights

DTYPES = ("float32", "bfloat16", "float16")
STALE = (r"relative_position_index$", r"num_batches_tracked$", r"^criterion\.")
"""Names that published files may still hold: tables that the model computes itself, and the training loss."""
BLOCK = 1 << 20


class Placement(NamedTuple):
    """Where a model runs, and which version of its weights.

    Attributes:
        device: Torch device; None: the first GPU if there is one, else the CPU.
        dtype: `float32`, `bfloat16` or `float16`; box and score arithmetic is in float32 throughout.
        batch_size: Most images per forward pass.
        revision: Branch, tag or commit on the hub; None: the default branch.
    """

    device: str | None = None
    dtype: str = "float32"
    batch_size: int = 8
    revision: str | None = None


def read_placement(judge: str, given: dict[str, Any]) -> Placement:
    """The placement of keyword arguments.

    Raises:
        ValueError: If one is unknown (the nearest is named) or out of range.
    """
    for name in given:
        if name not in Placement._fields:
            raise unknown(f"option of {judge}", name, Placement._fields)
    place = Placement(**given)
    if place.dtype not in DTYPES:
        raise unknown(f"dtype of {judge}", place.dtype, DTYPES)
    if not isinstance(place.batch_size, int) or place.batch_size < 1:
        raise ValueError(f"batch_size of {judge} is a whole number >= 1, got {place.batch_size!r}")
    return place


class FrozenModel:
    """A model of transformers in eval mode on its device, with what a result has to say of it."""

    def __init__(
        self, factory: Any, source: str | Path, place: Placement, *, unused: Sequence[str] = (), **options: Any
    ) -> None:
        """Loads the weights.

        Args:
            factory: A model class of transformers.
            source: Hub id, or a local folder in the published format.
            place: Device, precision, batch size and revision.
            unused: See `diffalign.rewards.weights.load_model`.
            **options: Further arguments of `from_pretrained`.

        Raises:
            MissingWeights: If the files are not to be had; names hub id, file, place and the way to a local copy.
            ValueError: If the file is another model's.
        """
        model = weights.load_model(
            factory, source, argument="model", ignore=STALE, unused=unused,
            dtype=getattr(torch, place.dtype), **_revision(place), **options,
        )  # fmt: skip
        self.source = str(source)
        self.batch_size = place.batch_size
        self.model: Any = model.to(place.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.model.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return next(iter(self.model.parameters())).dtype

    @cached_property
    def revision(self) -> str:
        """The hub's commit; of a local folder `sha256:` and 16 digits of the hash of its weights."""
        commit = getattr(self.model.config, "_commit_hash", None)
        return str(commit) if commit else file_hash(self.source)

    def describe(self) -> dict[str, str]:
        """What identifies the weights: source, revision and precision."""
        return {"model": self.source, "revision": self.revision, "dtype": str(self.dtype).removeprefix("torch.")}

    def batches(self, images: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Rows, and their images `(n, 3, H, W)` in float32 on the model's device."""
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield rows, images[rows].to(self.device, torch.float32)


class FrozenJudge:
    """A judge with a frozen model."""

    _frozen: FrozenModel

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model; its precision is an option of its own and stays."""
        self._frozen.model.to(device)
        return self


def load_processor(factory: Any, source: str | Path, place: Placement, file: str = "preprocessor_config.json") -> Any:
    """The processor beside a model.

    Raises:
        MissingWeights: If its files are not to be had.
    """
    return weights.from_pretrained(factory, source, file, argument="model", **_revision(place))


def judge_label(kind: str, model: str | Path, hub: str) -> str:
    """What results call a judge: its kind with the usual weights or a local copy of them, else the weights' own name.

    Args:
        kind: Name of the kind of judge.
        model: Hub id or folder of the weights.
        hub: Hub id of the usual weights.
    """
    name = Path(model).name
    return kind if name == Path(hub).name else name.lower()


def published_pixels(images: Tensor, processor: Any) -> Tensor:
    """Pixel input of 8-bit images by the model's own image processor, `(n, 3, h, w)` on the images' device."""
    pixels: Tensor = processor(images=list((images * 255).round().byte()), return_tensors="pt")["pixel_values"]
    return pixels.to(images.device)


def file_hash(source: str) -> str:
    """Hash of the weight files in a folder; empty where there are none."""
    files = [file for pattern in ("*.safetensors", "*.bin") for file in sorted(Path(source).expanduser().glob(pattern))]
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}" if files else ""


def _revision(place: Placement) -> dict[str, str]:
    return {} if place.revision is None else {"revision": place.revision}
