"""The small heads that turn an embedding into a score, in the layouts that LAION and ImageReward publish."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)
DROPOUT = (0.2, 0.2, 0.1)


class ScoreHead(nn.Module):
    """Five linear layers without activation, published under the keys `layers.{0,2,4,6,7}`.

    Dropout follows the first three, which is why the keys skip numbers. Without it (eval mode) the head is one affine
    map. In half precision a head would lose the second digit of a score: `VisionReward.to` keeps it in float32.
    """

    def __init__(self, width: int) -> None:
        """Makes a head on embeddings of this width."""
        super().__init__()
        self.layers = nn.Sequential(*_layers(width))

    def forward(self, embedding: Tensor) -> Tensor:
        """Scores `(B,)`, float32 at least, of embeddings `(B, width)`."""
        return self._map(embedding.to(torch.promote_types(embedding.dtype, torch.float32))).squeeze(-1)

    def _map(self, embedding: Tensor) -> Tensor:
        """`(B, width)` to `(B, 1)`."""
        score: Tensor = self.layers(embedding)
        return score


class LinearHead(ScoreHead):
    """One linear layer, published under the keys `weight` and `bias`."""

    def __init__(self, width: int) -> None:
        """Makes a head on embeddings of this width."""
        nn.Module.__init__(self)
        linear = nn.Linear(width, 1)
        self.weight, self.bias = linear.weight, linear.bias

    def _map(self, embedding: Tensor) -> Tensor:
        """`(B, width)` to `(B, 1)`."""
        return nn.functional.linear(embedding, self.weight, self.bias)


def _layers(width: int) -> Iterable[nn.Module]:
    """The layers in order."""
    for index, out in enumerate(WIDTHS):
        yield nn.Linear(width, out)
        width = out
        if index < len(DROPOUT):
            yield nn.Dropout(DROPOUT[index])
