"""A local vision-language model of transformers: logits of the first token of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from diffalign.rewards.vlm.pixels import prepare
from diffalign.rewards.weights import from_pretrained, load_model

CHAT_FILE = "chat_template.json"


class LocalVLM:
    """Questions about images to a frozen decoder-only model, answered by the logits of the first token.

    Sequences are padded on the right and read at their own last token, so that a question does not depend on its batch.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        """Wraps a model that is already loaded.

        Args:
            model: A frozen `AutoModelForImageTextToText` in eval mode.
            processor: Its processor, with a chat template.
        """
        self.model = model
        self.processor = processor

    @classmethod
    def load(cls, source: str, *, dtype: torch.dtype | str = "auto", argument: str = "model") -> Self:
        """Loads a published model.

        Args:
            source: Hub id, or a local folder in the published format.
            dtype: Of the weights; "auto": as they were saved.
            argument: What the user sets to name another one, for error messages.

        Raises:
            MissingWeights: If the files cannot be found.
            ValueError: If the weights are not those of the model.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        processor = from_pretrained(AutoProcessor, source, "preprocessor_config.json", argument=argument)
        return cls(load_model(AutoModelForImageTextToText, source, argument=argument, dtype=dtype), processor)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.processor.tokenizer

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model."""
        self.model.to(device=device, dtype=dtype)
        return self

    def plain(self, prompt: str) -> str:
        """A prompt without the model's special tokens, so that it cannot insert an image or end the turn."""
        added = self.tokenizer.added_tokens_decoder.values()
        tokens = {str(token) for token in added if token.special} | {getattr(self.processor, "image_token", None) or ""}
        tokens.discard("")
        while any(token in prompt for token in tokens):  # removing one may put another together
            for token in tokens:
                prompt = prompt.replace(token, "")
        return prompt

    def question(self, text: str, images: int = 1) -> str:
        """The model's own chat form of one user turn: some images, then the text.

        Raises:
            ValueError: If the model has no chat template.
        """
        if not getattr(self.processor, "chat_template", None):
            raise ValueError(
                f"{type(self.processor).__name__} has no chat template; put the model's {CHAT_FILE} or "
                "chat_template.jinja into its folder (base models have none)"
            )
        content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
        turn = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    def inputs(self, images: Sequence[Tensor], texts: Sequence[str]) -> dict[str, Tensor]:
        """The model's inputs, on its device and in its precision.

        Args:
            images: Per image of a question `(B, 3, H, W)` in [0, 1].
            texts: `B` questions in chat form.
        """
        prepared, options = zip(*(prepare(batch, self.processor.image_processor) for batch in images), strict=True)
        nested = [list(each) for each in zip(*prepared, strict=True)]
        made = self.processor(
            text=list(texts), images=nested, padding=True, padding_side="right", return_tensors="pt", **options[0]
        )
        weight = next(self.model.parameters())
        moved = {key: value.to(weight.device) for key, value in made.items() if isinstance(value, Tensor)}
        return {key: value.to(weight.dtype) if value.is_floating_point() else value for key, value in moved.items()}

    def next_logits(self, images: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        """Logits of the first token of the answer, `(B, V)`, float32 at least.

        Args:
            images: As for `inputs`.
            texts: As for `inputs`.
        """
        inputs = self.inputs(images, texts)
        last = inputs["attention_mask"].sum(1) - 1
        kept, where = last.unique(return_inverse=True)
        with torch.autocast(last.device.type, enabled=False):  # the model's own precision, not the trainer's
            logits = self.model(**inputs, logits_to_keep=kept, use_cache=False).logits
        rows = torch.arange(len(last), device=logits.device)
        return logits[rows, where].to(torch.promote_types(logits.dtype, torch.float32))
