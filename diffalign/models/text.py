"""The text side of an adapter: prompts through the pipeline's encoders, each alone and once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from diffalign.models.prompt_cache import PromptCache, Row, stacked
from diffalign.sampling import Cond


class TextEncoding:
    """Encoding, keeping and releasing; `Adapter` has the rest.

    Attributes:
        pipeline: the pipeline.
        device: where encoders run.
    """

    pipeline: Any
    device: torch.device
    _encoded: PromptCache
    _released = False

    @abstractmethod
    def _encode_one(self, prompt: str, negative: bool) -> Row:
        """Named tensors of one row each, from the pipeline's own `encode_prompt`.

        Args:
            prompt: the text.
            negative: it is a negative prompt.
        """

    def encode(self, prompts: Sequence[str], *, negative: bool = False) -> Cond:
        """Encoded prompts, one row each.

        Each prompt goes through the text encoders alone and once, so that its row does not depend on its companions;
        rows of unequal length are padded at the end.
        """
        keys = [(prompt, negative) for prompt in prompts]
        missing = [key for key in dict.fromkeys(keys) if key not in self._encoded]
        with self.text_encoders_at_work() if missing else nullcontext():
            for key in missing:
                self._encoded.put(key, self._encoded_alone(*key))
        rows = stacked([self._encoded[key] for key in keys])
        self._encoded.trim()
        return {name: value.to(self.device) for name, value in rows.items()}

    def cache_prompts(self, prompts: Sequence[str], *, negative: bool = False) -> None:
        """Encode prompts ahead, until the cache is full; nothing stays on the device."""
        with self.text_encoders_at_work():
            for key in ((prompt, negative) for prompt in prompts):
                if self._encoded.full:
                    return
                if key not in self._encoded:
                    self._encoded.put(key, self._encoded_alone(*key))

    def forget_prompts(self) -> None:
        """Drop every kept encoding: the text encoders have changed."""
        self._encoded = PromptCache()

    def text_encoders(self) -> dict[str, nn.Module]:
        """The pipeline's text encoders by name."""
        parts = self.pipeline.components.items()
        return {name: m for name, m in parts if isinstance(m, nn.Module) and name.startswith("text_encoder")}

    def release_text_encoders(self) -> None:
        """Move the text encoders to the CPU; from now on they come back only while a new prompt is encoded."""
        self._released = True
        for module in self.text_encoders().values():
            module.to("cpu")

    def _encoded_alone(self, prompt: str, negative: bool) -> Row:
        with torch.no_grad():
            return self._encode_one(prompt, negative)

    @contextmanager
    def text_encoders_at_work(self) -> Iterator[None]:
        """Text encoders that were released are on the device inside."""
        if not self._released:
            yield
            return
        for module in self.text_encoders().values():
            module.to(self.device)
        try:
            yield
        finally:
            self.release_text_encoders()
