"""Features of prompts, each computed once: the same few hundred prompts recur in every epoch."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

REMEMBERED = 4096
"""Prompts kept; 1024 numbers each in fp32 are 16 MB."""
PER_CALL = 32
"""Prompts encoded at once."""


class TextFeatures:
    """A bounded cache in front of a text encoder; the least recently used prompt is dropped first.

    Attributes:
        encoded: Prompts that went through the encoder so far.
    """

    def __init__(self, encode: Callable[[list[str]], Tensor], limit: int = REMEMBERED) -> None:
        """Wraps an encoder.

        Args:
            encode: `n` prompts -> features `(n, ...)`, of a shape that does not depend on the batch.
            limit: Prompts kept, at least 1.
        """
        if limit < 1:
            raise ValueError(f"the cache of prompts holds at least 1, got {limit}")
        self._encode = encode
        self._limit = limit
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self.encoded = 0

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Features `(B, ...)` of `B` prompts, without a gradient."""
        features = {prompt: self._known[prompt] for prompt in prompts if prompt in self._known}
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in features]
        self.encoded += len(new)
        for start in range(0, len(new), PER_CALL):
            part = new[start : start + PER_CALL]
            with torch.no_grad():
                features.update(zip(part, self._encode(part), strict=True))
        for prompt, value in features.items():
            self._known[prompt] = value
            self._known.move_to_end(prompt)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        # A copy: features cached in inference mode could not be saved for a backward pass.
        return torch.stack([features[prompt] for prompt in prompts])

    def __len__(self) -> int:
        """Prompts remembered."""
        return len(self._known)

    def clear(self) -> None:
        """Empties the cache: the encoder has moved or changed its dtype."""
        self._known.clear()


def tokenizer_beside(path: str | Path | None, published: str) -> str | Path:
    """The folder of a local copy of a model if the tokenizer is in it, else the published one's hub id."""
    names = ("tokenizer.json", "vocab.json", "vocab.txt")
    if path is not None and any((Path(path).expanduser() / name).is_file() for name in names):
        return path
    return published


class LengthWarning:
    """One warning, and no more, about prompts that a text encoder cuts off."""

    def __init__(self, name: str, context: int) -> None:
        """For a reward of this name whose text encoder reads `context` tokens."""
        self._name = name
        self._context = context
        self._told = False

    def __call__(self, prompts: Sequence[str], too_long: Sequence[bool]) -> None:
        """Warns the first time that a prompt is too long."""
        if self._told or not any(too_long):
            return
        self._told = True
        first = next(prompt for prompt, long in zip(prompts, too_long, strict=True) if long)
        logger.warning(
            "reward %r reads %d tokens; the rest of longer prompts is cut off and does not count (first: %r...). "
            "This warning is shown once.",
            self._name,
            self._context,
            first[:80],
        )
