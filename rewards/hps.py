"""HPSv2 and HPSv2.1 (Wu et al. 2023, arXiv 2306.09341): CLIP-H fine-tuned on rankings of generated images.

The bare cosine of image and prompt, without logit scale; tables print it times 100. The picture keeps its aspect ratio:
the long side becomes 224, the rest is black, then CLIP's normalisation. Built on open_clip alone.
"""

from __future__ import annotations

from pathlib import Path

from diffalign.rewards import weights
from diffalign.rewards.clip import SimilarityReward
from diffalign.rewards.clip_open_clip import OpenClip, check_architecture
from diffalign.rewards.images import pad_to_square
from diffalign.rewards.vision import BATCH_SIZE

REPO = "xswu/HPSv2"
ARCHITECTURE = "ViT-H-14"
"""Its vision tower has heads of width 80 and the exact GELU; it reads 77 tokens of text."""


class HPSv2Reward(SimilarityReward):
    """Human preference score, version 2."""

    licence = "Apache-2.0"
    range = (-1.0, 1.0)
    weights = ((REPO, "HPS_v2_compressed.pt"),)
    version = "hpsv2"

    def __init__(
        self,
        path: str | Path | None = None,
        architecture: str = ARCHITECTURE,
        *,
        batch_size: int = BATCH_SIZE,
        checkpoint: bool = False,
    ) -> None:
        """Loads the model.

        Args:
            path: Local copy of the published file, or its folder.
            architecture: Name of open_clip; the published files are ViT-H-14.
            batch_size: See `VisionReward`.
            checkpoint: See `VisionReward`.

        Raises:
            MissingWeights: If the file cannot be found.
            ValueError: If open_clip is not installed, or the checkpoint is another model's.
        """
        self.name = self.version
        check_architecture(architecture)
        ((repo, file),) = self.weights
        model = OpenClip(architecture, checkpoint=weights.locate(repo, file, path), fit=pad_to_square)
        super().__init__(model, batch_size=batch_size, checkpoint=checkpoint)


class HPSv21Reward(HPSv2Reward):
    """Human preference score, version 2.1: the same model trained on more data; another scale."""

    weights = ((REPO, "HPS_v2.1_compressed.pt"),)
    version = "hpsv2.1"
