"""ImageReward (Xu et al. 2023, arXiv 2304.05977): a BLIP over image and prompt together, trained on rankings.

The published checkpoint (THUDM/ImageReward) is loaded into BLIP's towers of transformers. The prompt, up to 35 tokens,
attends to the patches of the image; five linear layers map the state of its first token to a number, which is shifted
and scaled to mean 0 and standard deviation 1 over the training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffalign.rewards import weights
from diffalign.rewards.blip import BlipTowers, rename, text_config, vision_config
from diffalign.rewards.heads import ScoreHead
from diffalign.rewards.images import Preprocess
from diffalign.rewards.text_features import LengthWarning, tokenizer_beside
from diffalign.rewards.vision import BATCH_SIZE, VisionReward

REPO = "THUDM/ImageReward"
TOKENIZER = "google-bert/bert-base-uncased"
CONTEXT = 35
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output over the training data; constants of the published code."""


class ImageRewardReward(VisionReward):
    """Human preference for an image under a prompt, by ImageReward."""

    licence = "Apache-2.0"
    weights = ((REPO, "ImageReward.pt"), (REPO, "med_config.json"), (TOKENIZER, "tokenizer.json"))

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
            path: Folder of a local copy of `ImageReward.pt` and `med_config.json`.
            tokenizer: Hub id or folder of the tokenizer; default the one in `path`, or bert-base-uncased's.
            batch_size: See `VisionReward`.
            checkpoint: See `VisionReward`.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If the checkpoint is another model's.
        """
        from transformers import AutoTokenizer

        self.name = "imagereward"
        file = weights.locate(REPO, "ImageReward.pt", path)
        config = weights.locate(REPO, "med_config.json", path)
        where = tokenizer or tokenizer_beside(path, TOKENIZER)
        self._tokenizer = weights.from_pretrained(AutoTokenizer, where, "tokenizer.json", argument="tokenizer")
        module = load(file, config)
        super().__init__(module, batch_size=batch_size, checkpoint=checkpoint)
        self._scorer = module
        self._warn = LengthWarning(self.name, CONTEXT)

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(n,)` of images `(n, 3, H, W)` in [0, 1] and prompts."""
        scores: Tensor = self._scorer(images, *self._tokens(prompts, images))
        return scores

    def _tokens(self, prompts: Sequence[str], images: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask, each `(n, 35)`, beside the images."""
        texts = list(prompts)
        self._warn(texts, [len(ids) > CONTEXT for ids in self._tokenizer(texts, verbose=False)["input_ids"]])
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": CONTEXT}
        tokens = self._tokenizer(texts, return_tensors="pt", **options).to(images.device)
        return tokens["input_ids"], tokens["attention_mask"]


class ImageRewardModel(nn.Module):
    """BLIP's towers and the head."""

    def __init__(self, blip: BlipTowers, head: ScoreHead) -> None:
        """Joins them; the transform is CLIP's at the size that the vision tower reads."""
        super().__init__()
        self.blip = blip
        self.mlp = head
        self.preprocess = Preprocess(blip.image_size)

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Scores `(n,)` of images `(n, 3, H, W)` in [0, 1] and tokens `(n, L)`."""
        return standardise(self.mlp(self.blip(self.preprocess(images), ids, mask)))


def standardise(output: Tensor) -> Tensor:
    """Scores `(n,)` from outputs of the head `(n,)`: mean 0 and standard deviation 1 over the training data."""
    return (output - MEAN) / STD


def load(file: Path, config: Path) -> ImageRewardModel:
    """The model of a published checkpoint and its text configuration.

    Raises:
        ValueError: If the checkpoint is another model's; lists the first differences, under the names used here.
    """
    state = rename(weights.read(file), file)
    vision = vision_config(state)
    text = text_config(config, vision)
    model = ImageRewardModel(BlipTowers(vision, text), ScoreHead(text.hidden_size))
    weights.load_strict(model, state, file, ignore=(r"position_ids$", r"^blip\.(vision|text)_proj\."))
    return model
