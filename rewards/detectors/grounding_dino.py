"""Grounding DINO (arXiv 2303.05499): an open-vocabulary detector that reads all class names as one text.

The released post-processing joins the words whose token is likely into a label, which may come from two class names
("cat dog"). Here a box belongs to the class of its likeliest token, and has that token's score, as released.
"""

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

HUB = "IDEA-Research/grounding-dino-base"
SEPARATOR = "."


class GroundingDino(FrozenJudge):
    """Images and class names to boxes."""

    def __init__(self, frozen: FrozenModel, processor: Any, floor: float, overlap: float) -> None:
        """Wraps a loaded model; see `detect`."""
        self._frozen, self._processor, self._floor, self._overlap = frozen, processor, floor, overlap
        self._longest = int(frozen.model.config.max_text_len)
        self.name = judge_label("grounding_dino", frozen.source, HUB)

    def describe(self) -> dict[str, Any]:
        """What identifies the detector in a result."""
        options = {"floor": self._floor, "overlap": self._overlap}
        return {"name": self.name, **self._frozen.describe(), **options}

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Detections of images `(B, 3, H, W)`, best first; see `diffalign.evaluation.judges.Detector`.

        Images with the same labels share a forward pass: a text that is longer only by padding moves scores.

        Raises:
            ValueError: If the labels of an image do not fit into the model's text.
        """
        found: list[list[Detection]] = [[] for _ in range(len(images))]
        groups: dict[tuple[str, ...], list[int]] = {}
        for row, names in enumerate(labels):
            groups.setdefault(tuple(dict.fromkeys(names)), []).append(row)
        for names, rows in groups.items():
            for part, batch in self._frozen.batches(images[rows]) if names else ():
                for row, one in zip(rows[part], self._batch(batch, list(names)), strict=True):
                    found[row] = one
        return found

    def _batch(self, images: Tensor, names: list[str]) -> list[list[Detection]]:
        """One forward pass."""
        ids, spans = self._text(names)
        tokens = ids[None].expand(len(images), -1).to(images.device)
        pixels = published_pixels(images, self._processor.image_processor).to(self._frozen.dtype)
        mask = torch.ones_like(tokens)
        output = self._frozen.model(
            pixel_values=pixels, input_ids=tokens, attention_mask=mask, token_type_ids=torch.zeros_like(tokens)
        )
        height, width = images.shape[-2:]
        out = []
        for logits, boxes in zip(output.logits.float().sigmoid(), output.pred_boxes.float(), strict=True):
            scores, labels = torch.stack([logits[:, start:end].amax(1) for start, end in spans], 1).max(1)
            kept = scores > self._floor
            placed = corners(boxes[kept], width, height)
            out.append(as_detections(placed, scores[kept], labels[kept], names, (height, width), self._overlap))
        return out

    def _text(self, names: list[str]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Token ids `(L,)` of "[CLS] cat . traffic light . [SEP]", and where each name's tokens start and end."""
        tokenizer = self._processor.tokenizer
        dot = tokenizer.convert_tokens_to_ids(SEPARATOR)
        ids, spans = [tokenizer.cls_token_id], []
        for name in names:
            word = tokenizer.encode(name.strip().lower().replace(SEPARATOR, " "), add_special_tokens=False)
            spans.append((len(ids), len(ids) + len(word)))
            ids += [*word, dot]
        ids.append(tokenizer.sep_token_id)
        if len(ids) > self._longest or any(start == end for start, end in spans):
            raise ValueError(
                f"grounding_dino reads {self._longest} tokens, and at least one of each name; {len(names)} names have "
                f"{len(ids)}: give fewer or shorter ones ({', '.join(names[:4])}, ...)"
            )
        return torch.tensor(ids), spans


def detect(model: str = HUB, *, floor: float = 0.05, overlap: float = 0.5, **placement: Any) -> Detector:
    """Loads the detector.

    Args:
        model: Hub id or local folder of a `GroundingDinoForObjectDetection`.
        floor: Scores up to this are left out.
        overlap: A box goes whose intersection over union with a better one of its class is above this.
        **placement: `device`, `dtype`, `batch_size`, `revision`; see `Placement`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: If an option is unknown or out of range, or the file is another model's.
    """
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    place = read_placement("grounding_dino", placement)
    frozen = FrozenModel(GroundingDinoForObjectDetection, model, place)
    return GroundingDino(frozen, load_processor(GroundingDinoProcessor, model, place), floor, overlap)
