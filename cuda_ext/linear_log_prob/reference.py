"""The log-prob of a label in plain torch, some columns of the vocabulary at a time: the specification of the kernels.

``z = (h W^T + b) / T``, ``lse = logsumexp(z)``, ``log_prob = z[label] - lse``. With g and g_lse the gradients of both,
``dz = (onehot g - softmax(z) (g - g_lse)) / T``; then ``dh = dz W``, ``dW = dz^T h``, ``db = sum(dz)``. A tile of dz is
computed again from h and W in the backward pass; the matrix of logits is never whole. As in
`diffalign.losses.linear_log_prob`, products are taken in the type of the hidden states, all else in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

BYTES = 12
"""Of one logit in a tile: the product, its float32 copy, one temporary."""


class Layer(NamedTuple):
    """A linear layer and what is asked of it: h `(N, H)`, W `(V, H)`, b `(V,)` or None, labels `(N,)`, temperature."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    temperature: float


class Rows(NamedTuple):
    """What the gradient of a tile needs of each row: lse, g, and g - g_lse, all `(N,)`."""

    lse: Tensor
    chosen: Tensor
    shared: Tensor


Tile = Callable[[Layer, Rows, slice], tuple[Tensor, Tensor]]
"""dz of some columns `(N, columns)` in the type of h, and its sum over rows `(columns,)` in that of the arithmetic."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of the arithmetic: float32, float64 kept."""
    return torch.promote_types(dtype, torch.float32)


def spans(layer: Layer, memory: int) -> Iterator[slice]:
    """Columns of the vocabulary whose tiles fit the memory."""
    words, step = layer.weight.shape[0], max(memory // (BYTES * max(layer.hidden.shape[0], 1)), 1)
    return (slice(start, min(start + step, words)) for start in range(0, words, step))


def logits(layer: Layer, c: slice) -> Tensor:
    """Some columns of z, `(N, columns)`."""
    z = (layer.hidden @ layer.weight[c].to(layer.hidden.dtype).T).to(wide(layer.hidden.dtype))
    return (z if layer.bias is None else z + layer.bias[c]) / layer.temperature


def place(labels: Tensor, c: slice) -> tuple[Tensor, Tensor]:
    """Which labels lie in the columns `(N, 1)`, and where; elsewhere 0."""
    inside = (labels >= c.start) & (labels < c.stop)
    return inside[:, None], torch.where(inside, labels - c.start, 0)[:, None]


def forward(layer: Layer, memory: int) -> tuple[Tensor, Tensor]:
    """log_prob and lse, `(N,)` both."""
    chosen = layer.hidden.new_zeros(layer.hidden.shape[0], dtype=wide(layer.hidden.dtype))
    lse = torch.full_like(chosen, -torch.inf)
    for c in spans(layer, memory):
        z = logits(layer, c)
        inside, at = place(layer.labels, c)
        chosen = torch.where(inside, z.gather(1, at), chosen[:, None])[:, 0]
        lse = torch.logaddexp(lse, z.logsumexp(1))
    return chosen - lse, lse


def tile(layer: Layer, rows: Rows, c: slice) -> tuple[Tensor, Tensor]:
    """See `Tile`."""
    dz = -(logits(layer, c) - rows.lse[:, None]).exp() * rows.shared[:, None]
    inside, at = place(layer.labels, c)
    dz = dz.scatter_add(1, at, torch.where(inside, rows.chosen[:, None], 0)) / layer.temperature
    return dz.to(layer.hidden.dtype), dz.sum(0)


def backward(
    layer: Layer, rows: Rows, memory: int, wanted: tuple[bool, bool, bool], tile: Tile = tile
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of h, W and b in their types, each empty if not wanted; sums over tiles are kept in float32."""
    hidden, weight, bias = layer.hidden, layer.weight, layer.bias
    dtype = wide(hidden.dtype)
    of_hidden = hidden.new_zeros(hidden.shape if wanted[0] else 0, dtype=dtype)
    of_weight = weight.new_empty(weight.shape if wanted[1] else 0)
    of_bias = weight.new_empty(0) if bias is None or not wanted[2] else bias.new_empty(bias.shape)
    for c in spans(layer, memory):
        dz, column_sums = tile(layer, rows, c)
        if wanted[0]:
            of_hidden += dz @ weight[c].to(hidden.dtype)
        if wanted[1]:
            of_weight[c] = (dz.T @ hidden).to(weight.dtype)
        if wanted[2] and bias is not None:
            of_bias[c] = column_sums.to(bias.dtype)
    return of_hidden.to(hidden.dtype), of_weight, of_bias
