"""OWLv2 (arXiv 2306.09683): an open-vocabulary detector that takes each class name as a text query of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation.judges import Detection, Detector
from diffalign.rewards.detectors._boxes import as_detections, corners
from diffalign.rewards.detectors._frozen import (
    FrozenJudge,
    FrozenModel,
    judge_label,
    load_processor,
    published_pixels,
    read_placement,
)

HUB = "google/owlv2-base-patch16-ensemble"
TEMPLATE = "a photo of a {label}"
"""Prompt of the released demo."""


class Owlv2(FrozenJudge):
    """Images and class names to boxes; a box has the class of its best query."""

    def __init__(self, frozen: FrozenModel, processor: Any, template: str, floor: float, overlap: float) -> None:
        """Wraps a loaded model; see `detect`."""
        self._frozen, self._processor, self._template = frozen, processor, template
        self._floor, self._overlap = floor, overlap
        self.name = judge_label("owlv2", frozen.source, HUB)

    def describe(self) -> dict[str, Any]:
        """What identifies the detector in a result."""
        options = {"template": self._template, "floor": self._floor, "overlap": self._overlap}
        return {"name": self.name, **self._frozen.describe(), **options}

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Detections of images `(B, 3, H, W)`, best first; see `diffalign.evaluation.judges.Detector`."""
        found: list[list[Detection]] = []
        for rows, batch in self._frozen.batches(images):
            found += self._batch(batch, [list(dict.fromkeys(names)) for names in labels[rows]])
        return found

    def _batch(self, images: Tensor, labels: list[list[str]]) -> list[list[Detection]]:
        """One forward pass; images without a label have no detection."""
        asked = max(map(len, labels))
        if not asked:
            return [[] for _ in labels]
        padded = [names + [""] * (asked - len(names)) for names in labels]
        texts = [self._template.format(label=label) for names in padded for label in names]
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        tokens = self._processor.tokenizer(texts, **options).to(images.device)
        pixels = published_pixels(images, self._processor.image_processor).to(self._frozen.dtype)
        output = self._frozen.model(pixel_values=pixels, **tokens)
        side = float(max(images.shape[-2:]))  # the processor pads to a square, right and below
        return [
            self._image(logits.float()[:, : len(names)], corners(boxes.float(), side, side), names, images.shape[-2:])
            for logits, boxes, names in zip(output.logits, output.pred_boxes, labels, strict=True)
        ]

    def _image(self, logits: Tensor, boxes: Tensor, names: list[str], size: Any) -> list[Detection]:
        """Detections of one image from `(N, Q)` logits of its own queries, without those that fill up the batch."""
        if not names:
            return []
        scores, labels = logits.sigmoid().max(-1)
        kept = scores > self._floor
        return as_detections(boxes[kept], scores[kept], labels[kept], names, size, self._overlap)


def detect(
    model: str = HUB, *, template: str = TEMPLATE, floor: float = 0.05, overlap: float = 0.5, **placement: Any
) -> Detector:
    """Loads the detector.

    Args:
        model: Hub id or local folder of an `Owlv2ForObjectDetection`.
        template: Text of a query, with `{label}`.
        floor: Scores up to this are left out.
        overlap: A box goes whose intersection over union with a better one of its class is above this: the model
            itself proposes an object many times.
        **placement: `device`, `dtype`, `batch_size`, `revision`; see `Placement`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: If an option is unknown or out of range, or the file is another model's.
    """
    from transformers import Owlv2ForObjectDetection, Owlv2Processor

    if "{label}" not in template:
        raise ValueError(f"the template of owlv2 needs {{label}}, got {template!r}")
    place = read_placement("owlv2", placement)
    frozen = FrozenModel(Owlv2ForObjectDetection, model, place)
    return Owlv2(frozen, load_processor(Owlv2Processor, model, place), template, floor, overlap)
