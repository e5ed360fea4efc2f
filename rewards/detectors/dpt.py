"""DPT-hybrid of MiDaS (arXiv 2103.13413): relative inverse depth, as T2I-CompBench's 3-D part estimates it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffalign.evaluation.judges import DepthEstimator
from diffalign.rewards.detectors._frozen import FrozenJudge, FrozenModel, judge_label, read_placement
from diffalign.rewards.images import Preprocess, squash_to_square

HUB = "Intel/dpt-hybrid-midas"
SIDE = 480
HALF = (0.5, 0.5, 0.5)
UNREACHED = (r"^neck\.fusion_stage\.layers\.0\.residual_layer1\.",)
"""The first fusion layer has no residual: the class builds these weights, the published file rightly lacks them."""


class Dpt(FrozenJudge):
    """Images to inverse depth."""

    def __init__(self, frozen: FrozenModel, side: int) -> None:
        """Wraps a loaded model; see `depth`."""
        self._frozen = frozen
        self._preprocess = Preprocess(side, HALF, HALF, squash_to_square, "bilinear")
        self.name = judge_label("dpt", frozen.source, HUB)

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result."""
        return {"name": self.name, **self._frozen.describe(), "side": self._preprocess.size}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Depth `(B, H, W)` of images `(B, 3, H, W)`; see `diffalign.evaluation.judges.DepthEstimator`."""
        size = tuple(images.shape[-2:])
        maps = []
        for _, batch in self._frozen.batches(images):
            pixels = self._preprocess(batch).to(self._frozen.dtype)
            found = self._frozen.model(pixel_values=pixels).predicted_depth.float()
            maps.append(functional.interpolate(found[:, None], size, mode="bilinear", align_corners=True)[:, 0])
        return torch.cat(maps).to(images.device)


def depth(model: str = HUB, *, side: int = SIDE, **placement: Any) -> DepthEstimator:
    """Loads the judge.

    Args:
        model: Hub id or local folder of a `DPTForDepthEstimation`.
        side: Pixels of the square that the model sees; the benchmark's 480.
        **placement: `device`, `dtype`, `batch_size`, `revision`; see `Placement`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: If an option is unknown or out of range, or the file is another model's.
    """
    from transformers import DPTForDepthEstimation

    if side < 32 or side % 32:
        raise ValueError(f"side of dpt is a multiple of 32 pixels, got {side}")
    frozen = FrozenModel(DPTForDepthEstimation, model, read_placement("dpt", placement), unused=UNREACHED)
    embeddings = getattr(getattr(frozen.model, "dpt", None), "embeddings", None)
    if embeddings is not None:
        embeddings.image_size = (side, side)  # the class checks against it; positions are interpolated in any case
    return Dpt(frozen, side)
