"""Mask2Former (arXiv 2112.01527) as the detector of GenEval, by transformers: instances with class, mask and box.

GenEval's own detector is OpenMMLab's Mask2Former Swin-S for COCO instances. The weights here are those of the original
authors, of the same architecture and recipe; scores differ a little from OpenMMLab's, so results are named
`geneval-hf`. The processor that is published beside them resizes to 384 x 384 and post-processes there; the weights
were trained and are evaluated at a short side of 800 pixels, so the way in and out is `_instances`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation.judges import Detection, Detector
from diffalign.rewards.detectors._coco import GENEVAL_NAMES
from diffalign.rewards.detectors._frozen import FrozenJudge, FrozenModel, judge_label, read_placement
from diffalign.rewards.detectors._instances import Instances, instances, pixel_input, resized_sides

HUB = "facebook/mask2former-swin-small-coco-instance"


class Mask2Former(FrozenJudge):
    """Images to detections with masks; the vocabulary is fixed, so the labels that are asked for are not read."""

    def __init__(self, frozen: FrozenModel, names: list[str], floor: float) -> None:
        """Wraps a loaded model.

        Args:
            frozen: A `Mask2FormerForUniversalSegmentation`.
            names: Class names by index.
            floor: Scores up to this are left out.
        """
        self._frozen, self._names, self._floor = frozen, names, floor
        self.name = judge_label("mask2former", frozen.source, HUB)

    def describe(self) -> dict[str, Any]:
        """What identifies the detector in a result."""
        return {"name": self.name, **self._frozen.describe(), "floor": self._floor}

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: object = None) -> list[list[Detection]]:
        """Detections of images `(B, 3, H, W)` in [0, 1], best first; see `diffalign.evaluation.judges.Detector`."""
        found = []
        for _, batch in self._frozen.batches(images):
            height, width = resized_sides(*batch.shape[-2:])
            pixels = pixel_input(batch, height, width).to(self._frozen.dtype)
            output = self._frozen.model(pixel_values=pixels)
            for classes, masks in zip(output.class_queries_logits, output.masks_queries_logits, strict=True):
                scale = (pixels.shape[-2:], (height, width), batch.shape[-2:])
                found.append(self._detections(instances(classes.float(), masks.float(), *scale, floor=self._floor)))
        return found

    def _detections(self, one: Instances) -> list[Detection]:
        rows = zip(one.scores.tolist(), one.labels.tolist(), one.boxes.tolist(), one.masks.cpu(), strict=True)
        return [
            Detection(self._names[label], score, (x0, y0, x1, y1), mask=mask)
            for score, label, (x0, y0, x1, y1), mask in rows
        ]


def detect(model: str = HUB, *, floor: float = 0.05, names: list[str] | None = None, **placement: Any) -> Detector:
    """Loads the detector.

    Args:
        model: Hub id or local folder of a `Mask2FormerForUniversalSegmentation` for instances.
        floor: Scores up to this are left out; every published threshold lies above 0.05.
        names: Class names by index; None: GenEval's for the 80 classes of COCO, else the model's own.
        **placement: `device`, `dtype`, `batch_size`, `revision`; see `Placement`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: If an option is unknown or out of range, or the file is another model's.
    """
    from transformers import Mask2FormerForUniversalSegmentation

    if not 0 <= floor < 1:
        raise ValueError(f"floor of mask2former lies in [0, 1), got {floor}")
    frozen = FrozenModel(Mask2FormerForUniversalSegmentation, model, read_placement("mask2former", placement))
    own = [str(frozen.model.config.id2label[index]) for index in range(frozen.model.config.num_labels)]
    chosen = names or (list(GENEVAL_NAMES) if len(own) == len(GENEVAL_NAMES) else own)
    if len(chosen) != len(own):
        raise ValueError(f"mask2former: {model} has {len(own)} classes, names has {len(chosen)}; give one name each")
    return Mask2Former(frozen, chosen, floor)
