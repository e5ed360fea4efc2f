"""LAION's aesthetic predictors: how much people like the look of an image; the prompt is not read.

Both read the normalised image embedding of OpenAI's CLIP ViT-L/14. Version 1 is a linear map, version 2 five linear
layers without activation, in eval mode one affine map as well; both predict ratings of 1 to 10. The transform is that
of the authors' script (OpenAI's `clip` package). DDPO's `aesthetic` reward is version 2 with the processor of
transformers, whose crop of an image that is not square may be one pixel further left or up.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffalign.rewards import weights
from diffalign.rewards.clip_transformers import TransformersVision
from diffalign.rewards.heads import LinearHead, ScoreHead
from diffalign.rewards.images import crop_to_square
from diffalign.rewards.vision import BATCH_SIZE, VisionReward

CLIP = "openai/clip-vit-large-patch14"
CLIP_FILES = ((CLIP, "model.safetensors"), (CLIP, "preprocessor_config.json"))


class AestheticReward(VisionReward):
    """Version 2 of the predictor, `sac+logos+ava1-l14-linearMSE`.

    The file is published on GitHub; the hub id is a copy of it.
    """

    needs = frozenset()
    licence = "Apache-2.0 (CLIP: MIT)"
    head_file = ("camenduru/improved-aesthetic-predictor", "sac+logos+ava1-l14-linearMSE.pth")
    weights = (head_file, *CLIP_FILES)
    head_class: type[ScoreHead] = ScoreHead
    version = "aesthetic"

    def __init__(
        self,
        head: str | Path | None = None,
        clip: str | Path = CLIP,
        *,
        batch_size: int = BATCH_SIZE,
        checkpoint: bool = False,
    ) -> None:
        """Loads CLIP's image half and the head.

        Args:
            head: Local copy of the head's file, or its folder.
            clip: Hub id of the CLIP, or the folder of a local copy.
            batch_size: See `VisionReward`.
            checkpoint: See `VisionReward`.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If a checkpoint is another model's.
        """
        self.name = self.version
        found = weights.locate(*self.head_file, head, argument="head")
        tower = TransformersVision(clip, fit=crop_to_square, argument="clip")
        module = _Scorer(tower, self.head_class(tower.model.config.projection_dim))
        weights.load_strict(module.head, weights.read(found), found)
        super().__init__(module, batch_size=batch_size, checkpoint=checkpoint)
        self._scorer = module

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Ratings `(n,)` of images `(n, 3, H, W)` in [0, 1]; prompts are not read."""
        scores: Tensor = self._scorer(images)
        return scores


class AestheticV1Reward(AestheticReward):
    """Version 1 of the predictor, a linear map; published on GitHub only."""

    licence = "MIT (CLIP: MIT)"
    head_file = ("github:LAION-AI/aesthetic-predictor", "sa_0_4_vit_l_14_linear.pth")
    weights = (head_file, *CLIP_FILES)
    head_class = LinearHead
    version = "aesthetic_v1"


class _Scorer(nn.Module):
    """Image half and head as one module, so that they move together."""

    def __init__(self, tower: TransformersVision, head: ScoreHead) -> None:
        super().__init__()
        self.tower = tower
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Ratings `(n,)` of the direction of the embedding; its length is divided out."""
        embedding = self.tower.image_features(images)
        wide = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        rating: Tensor = self.head(functional.normalize(wide, dim=-1))
        return rating
