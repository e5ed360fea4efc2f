"""Text rendering: the text that the prompt quotes against what a model reads in the image, by edit distance.

The score of Flow-GRPO's text rendering task, 1 - distance / length, blanks and case ignored, without PaddleOCR: any
model of transformers that reads text, from GOT-OCR (whole images) to TrOCR (one line) or a chat model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.contract import check_contract
from diffalign.rewards.functions.text import quoted_text, text_score
from diffalign.rewards.vlm.local import LocalVLM
from diffalign.rewards.vlm.logit import short_name
from diffalign.rewards.vlm.pixels import pixel_values

READER = "stepfun-ai/GOT-OCR-2.0-hf"
QUESTION = "Write down the text in this image, and nothing else."
KEY = "text"


class OcrReward(Reward):
    """Share of the wanted text that is read, in [0, 1]; not differentiable, reading picks tokens."""

    range = (0.0, 1.0)
    needs = frozenset({"prompt"})
    licence = "Apache-2.0 (GOT-OCR 2.0)"
    weights = ((READER, "model.safetensors"), (READER, "preprocessor_config.json"), (READER, "tokenizer.json"))

    def __init__(
        self,
        model: str = READER,
        *,
        contained: bool = True,
        max_new_tokens: int = 64,
        dtype: torch.dtype | str = "auto",
        batch_size: int = 8,
    ) -> None:
        """Loads the reader.

        Args:
            model: Hub id or folder of a model that `AutoModelForImageTextToText` loads.
            contained: Whether a reading that contains the text has score 1 whatever is around it; otherwise
                superfluous letters lower the score.
            max_new_tokens: Length of a reading.
            dtype: Of the weights.
            batch_size: Images read at once.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If the weights are not those of the model, or a number is below 1.
        """
        if batch_size < 1 or max_new_tokens < 1:
            raise ValueError(f"batch_size and max_new_tokens are at least 1, got {batch_size} and {max_new_tokens}")
        self.name = f"ocr_{short_name(model)}{'' if contained else '_whole'}"
        self._vlm = LocalVLM.load(str(Path(model)) if Path(model).is_dir() else model, dtype=dtype)
        self._contained, self._length, self._batch_size = contained, max_new_tokens, batch_size

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model."""
        self._vlm.to(device, dtype)
        return self

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)` in [0, 1].

        The text is `metadata["text"]`, or what the prompt has in quotation marks.

        Raises:
            ValueError: If a prompt has neither.
        """
        wanted = [_wanted(prompt, record) for prompt, record in zip(prompts, metadata, strict=True)]
        found = self.read(images)
        scores = [text_score(w, f, contained=self._contained) for w, f in zip(wanted, found, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def read(self, images: Tensor) -> list[str]:
        """What the model reads in images `(B, 3, H, W)`."""
        with torch.no_grad():
            return [text for batch in images.split(self._batch_size) for text in self._read(batch)]

    def _read(self, images: Tensor) -> list[str]:
        """Readings of one batch."""
        inputs = self._inputs(images)
        model, processor = self._vlm.model, self._vlm.processor
        made = model.generate(**inputs, max_new_tokens=self._length, do_sample=False, num_beams=1)
        if not model.config.is_encoder_decoder:
            made = made[:, inputs["input_ids"].shape[1] :]
        return [str(text) for text in processor.batch_decode(made, skip_special_tokens=True)]

    def _inputs(self, images: Tensor) -> dict[str, Any]:
        """What the model reads: pixels alone, a question and pixels, or what its processor makes of images alone."""
        processor = self._vlm.processor
        weight = next(self._vlm.model.parameters())
        if self._vlm.model.config.is_encoder_decoder:
            return {"pixel_values": pixel_values(images, processor.image_processor).to(weight)}
        if getattr(processor, "chat_template", None):
            return self._vlm.inputs([images], [self._vlm.question(QUESTION)] * len(images))
        bytes_ = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
        made = processor(images=list(bytes_), return_tensors="pt").to(weight.device)
        return {key: value.to(weight.dtype) if value.is_floating_point() else value for key, value in made.items()}

    def self_test(self) -> None:
        """Contract on noise."""
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        check_contract(self, images, ['a sign that says "open"'] * 2, [{}] * 2)


def _wanted(prompt: str, record: Metadata) -> str:
    """The text that an image has to show."""
    text = record.get(KEY) or quoted_text(prompt)
    if not text:
        raise ValueError(
            f"the ocr reward needs a text: put it into quotation marks in the prompt, or into metadata[{KEY!r}]; "
            f"prompt {prompt!r} has neither (use a route to score only prompts that have one)"
        )
    return str(text)
