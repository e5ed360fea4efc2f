"""The averaged copy of a model that is saved and scored."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """Exponential moving average of a module's weights; buffers (running statistics) are copied."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.live, self.decay, self.count = module, decay, 0
        self.source = list(module.parameters())
        self.target = list(self.module.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """One step; early steps use a shorter memory, so that the start is forgotten."""
        self.count += 1
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.target, self.source, weight)
        for kept, new in zip(self.module.buffers(), self.live.buffers(), strict=True):
            kept.copy_(new)
