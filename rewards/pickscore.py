"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): a CLIP-H fine-tuned on the choices of users of Pick-a-Pic.

exp(logit scale) times the cosine of image and prompt, the scale being close to 100: the difference of two scores is the
logit of preferring one image. Others divide by 26 (Flow-GRPO's code) or take the bare cosine; here it is the paper's.
"""

from __future__ import annotations

from pathlib import Path

from diffalign.rewards.clip import SimilarityReward
from diffalign.rewards.clip_transformers import TransformersClip
from diffalign.rewards.images import crop_to_square_floor
from diffalign.rewards.text_features import tokenizer_beside
from diffalign.rewards.vision import BATCH_SIZE

MODEL = "yuvalkirstain/PickScore_v1"
PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScoreReward(SimilarityReward):
    """Human preference for an image under a prompt."""

    licence = "MIT"
    range = (-100.0, 100.0)
    weights = ((MODEL, "model.safetensors"), (PROCESSOR, "tokenizer.json"))

    def __init__(
        self,
        path: str | Path | None = None,
        tokenizer: str | Path | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        checkpoint: bool = False,
    ) -> None:
        """Loads the model.

        Args:
            path: Folder of a local copy, in the format of transformers; default the published hub id.
            tokenizer: Hub id or folder of the tokenizer; default the one in `path`, or that of the published processor.
            batch_size: See `VisionReward`.
            checkpoint: See `VisionReward`.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If the checkpoint is another model's.
        """
        self.name = "pickscore"
        tokenizer = tokenizer or tokenizer_beside(path, PROCESSOR)
        model = TransformersClip(path or MODEL, tokenizer=tokenizer, fit=crop_to_square_floor, argument="path")
        factor = model.logit_scale
        self.range = (-factor, factor)
        super().__init__(model, factor=factor, batch_size=batch_size, checkpoint=checkpoint)
