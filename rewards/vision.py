"""Base class of rewards with a vision model: the model's own device and dtype, batches, gradient, self-test."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.contract import check_contract
from diffalign.rewards.heads import ScoreHead
from diffalign.rewards.images import check_images

BATCH_SIZE = 32


class VisionReward(Reward):
    """A frozen vision model that scores each image alone, with a gradient.

    Images may be on another device than the model; the score is returned on theirs. The model computes in its own
    dtype, whatever autocast is around it, so that a score does not depend on the trainer's precision.
    """

    differentiable = True
    needs = frozenset({"prompt"})

    def __init__(self, module: nn.Module, *, batch_size: int = BATCH_SIZE, checkpoint: bool = False) -> None:
        """Freezes the model.

        Args:
            module: The model; put into eval mode, and given no gradient of its own.
            batch_size: Images that it sees at once.
            checkpoint: With a gradient, compute each batch again in the backward pass instead of keeping its
                activations: memory of one batch, time of one more forward.

        Raises:
            ValueError: If the batch size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {batch_size}")
        self._module = module.eval().requires_grad_(False)
        self._batch_size = batch_size
        self._checkpoint = checkpoint

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)` in [0, 1].

        Raises:
            ValueError: If the images are none (`diffalign.rewards.images.check_images`), or prompts are not one each.
        """
        check_images(images)
        if len(prompts) != len(images):
            raise ValueError(f"reward {self.name!r}: {len(images)} images and {len(prompts)} prompts; give one each")
        parts = []
        for start in range(0, len(images), self._batch_size):
            part = slice(start, start + self._batch_size)
            parts.append(self._batch(images[part].to(self._place.device), list(prompts[part])))
        scores = torch.cat(parts)
        return scores.to(images.device, torch.promote_types(scores.dtype, torch.float32))

    def _batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(n,)` of one batch on the model's device."""
        with torch.autocast(images.device.type, enabled=False):
            if self._checkpoint and images.requires_grad and torch.is_grad_enabled():
                scores: Tensor = recompute(self.score_batch, images, prompts, use_reentrant=False)
                return scores
            return self.score_batch(images, prompts)

    @abstractmethod
    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(n,)` of images `(n, 3, H, W)` on the model's device."""

    @property
    def _place(self) -> Tensor:
        """A parameter of the model, for its device and dtype."""
        return next(self._module.parameters())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model, and changes its dtype if one is given; a score head stays in float32 at least."""
        self._module.to(device=device, dtype=dtype)
        for module in self._module.modules():
            if dtype is not None and isinstance(module, ScoreHead):
                module.to(dtype=torch.promote_types(dtype, torch.float32))
        return self

    def self_test(self) -> None:
        """Contract on three pictures of noise of different coarseness."""
        noise = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        coarse = [nn.functional.avg_pool2d(noise[i : i + 1], 2**i).repeat_interleave(2**i, 2) for i in range(3)]
        images = torch.cat([image.repeat_interleave(2**i, 3) for i, image in enumerate(coarse)])
        check_contract(self, images.to(self._place.device), ["a cat", "a dog", "a red cube"], [{}, {}, {}])
