"""RPO's lambda-harmonic reward (arXiv 2407.12164): similarity to reference photos of a subject and to the prompt.

1 / (lambda / a + (1 - lambda) / b) of an image similarity a to the reference images (mean of (cosine + 1) / 2) and a
text similarity b, both by ALIGN. The smaller one dominates: neither a copy of the photo nor its absence scores high.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from diffalign.losses.reward_combination import harmonic
from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.contract import check_contract
from diffalign.rewards.features import ImageEncoder
from diffalign.rewards.set_rewards import folder_features
from diffalign.rewards.text_features import LengthWarning, TextFeatures
from diffalign.rewards.weights import from_pretrained

ALIGN = "kakaobrain/align-base"
FILES = ("model.safetensors", "preprocessor_config.json", "tokenizer.json")
CONTEXT = 64
KEY = "reference_images"


class AlignHarmonicReward(Reward):
    """Weighted harmonic mean of similarity to reference images and to the prompt, in [0, 1]."""

    differentiable = True
    range = (0.0, 1.0)
    needs = frozenset({"prompt", "metadata", "reference_images"})
    licence = "not stated by its authors (COYO-ALIGN's code: Apache-2.0)"
    weights = tuple((ALIGN, file) for file in FILES)

    def __init__(
        self, model: str = ALIGN, *, image_weight: float = 0.3, references: str | None = None, batch_size: int = 32
    ) -> None:
        """Loads ALIGN.

        Args:
            model: Hub id or folder of an ALIGN, or of another model with image and text features.
            image_weight: lambda, 0 (prompt only) to 1 (references only); .3 is the default of RPO's training.
            references: Folder of reference images for all prompts; None: `metadata["reference_images"]`, a sequence
                of `(3, H, W)` in [0, 1] per sample. A sample without any is NaN, unless lambda is 0.
            batch_size: Images seen at once.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If lambda is outside [0, 1], or the model has no text features.
        """
        from transformers import AutoTokenizer

        if not 0 <= image_weight <= 1:
            raise ValueError(f"image_weight is 0 to 1, got {image_weight}")
        self.name = "align_harmonic" if model == ALIGN else f"align_harmonic_{Path(model).name.lower()}"
        self._share = image_weight
        self._images = ImageEncoder(model, argument="model", batch_size=batch_size)
        if not hasattr(self._images.model, "get_text_features"):
            raise ValueError(f"{model} has no text features; give a model with both, such as {ALIGN}")
        self._tokenizer: Any = from_pretrained(AutoTokenizer, model, "tokenizer.json", argument="model")
        self._texts = TextFeatures(self._encode)
        self._warn = LengthWarning(self.name, CONTEXT)
        self._fixed = None if references is None else folder_features(Path(references).expanduser(), self._images)

    def _encode(self, prompts: list[str]) -> Tensor:
        """Text features `(n, D)`."""
        model = self._images.model
        ids = self._tokenizer(prompts, verbose=False)["input_ids"]
        self._warn(prompts, [len(each) > CONTEXT for each in ids])
        options = {"padding": "max_length", "truncation": True, "max_length": CONTEXT, "return_tensors": "pt"}
        output = model.get_text_features(**self._tokenizer(prompts, **options).to(model.device))
        return output if isinstance(output, Tensor) else output.pooler_output

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model."""
        self._images.to(device=device, dtype=dtype)
        self._texts.clear()
        return self

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)` in [0, 1]."""
        features = self._images(images)
        texts = self._texts(prompts).to(features)
        to_prompt = (functional.cosine_similarity(features, texts) + 1) / 2
        to_references = (self._similarity(features, metadata) + 1) / 2
        if self._share in (0.0, 1.0):
            return to_prompt if self._share == 0 else to_references
        scores = harmonic(torch.stack([to_references, to_prompt]), (self._share, 1 - self._share))
        return torch.where(to_references.isnan(), torch.nan, scores)

    def _similarity(self, features: Tensor, metadata: Sequence[Metadata]) -> Tensor:
        """Mean cosine of each image with its references, `(B,)`; NaN without any."""
        known: dict[tuple[int, ...], Tensor] = {}  # samples of one prompt share their reference images
        rows = []
        for feature, record in zip(features, metadata, strict=True):
            given = record.get(KEY)
            if self._fixed is not None:
                references = self._fixed.to(features)
            elif given is None or not len(given):
                rows.append(feature.new_tensor(torch.nan))
                continue
            else:
                key = (id(given),) if isinstance(given, Tensor) else tuple(map(id, given))
                if key not in known:
                    known[key] = self._read(given).to(features)
                references = known[key]
            rows.append(functional.cosine_similarity(feature[None], references).mean())
        return torch.stack(rows)

    def _read(self, given: Sequence[Tensor]) -> Tensor:
        """Features `(R, D)` of reference images of any sizes, without a gradient."""
        with torch.no_grad():
            return torch.cat([self._images(image[None].float()) for image in given])

    def self_test(self) -> None:
        """Contract on noise with a reference."""
        images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        check_contract(self, images, ["a cat", "a dog", "a cube"], [{KEY: [images[0]]}] * 3)
