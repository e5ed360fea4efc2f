"""Log-probs of tokens from hidden states, without the matrix of logits.

With a vocabulary of 131,072 the logits of 4,096 tokens take 2 GiB in fp32, and the softmax and its gradient as much
each; an objective needs only 4,096 numbers. :func:`linear_log_prob` computes them tile by tile over the vocabulary with
a running log-sum-exp, and recomputes each tile in the backward pass. The gradient of the weight is summed over all
tokens in fp32 before it is rounded to the weight's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffalign.losses.common import as_float, check_floating, check_positive

ROWS = 4096  # tokens in one tile at most; a few thousand keep a matrix product busy
BYTES = 12  # of one logit: the product, its fp32 copy, one temporary


def _spans(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _tiles(hidden: Tensor, weight: Tensor, memory: int) -> tuple[list[slice], list[slice]]:
    """Spans of tokens and of the vocabulary whose tiles fit the memory."""
    rows = max(min(hidden.shape[0], ROWS), 1)
    return _spans(hidden.shape[0], rows), _spans(weight.shape[0], max(memory // (BYTES * rows), 1))


class _Layer(NamedTuple):
    """The output layer of a language model; computes any rows and columns of its logits."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    temperature: float

    def logits(self, r: slice, c: slice) -> Tensor:
        """One tile, fp32 (fp64 kept); the product is taken in the type of ``hidden``."""
        z = as_float(self.hidden[r] @ self.columns(c).T)
        z = z if self.bias is None else z.add_(self.bias[c])
        return z.div_(self.temperature)

    def columns(self, c: slice) -> Tensor:
        """Rows of the weight for some tokens, ``(columns, H)``."""
        return self.weight[c].to(self.hidden.dtype)

    def place(self, r: slice, c: slice) -> tuple[Tensor, Tensor]:
        """Which labels lie in the columns, ``(rows,)``, and where, ``(rows, 1)``; elsewhere 0."""
        labels = self.labels[r]
        inside = (labels >= c.start) & (labels < c.stop)
        return inside, torch.where(inside, labels - c.start, 0)[:, None]

    def delta(self, r: slice, c: slice, total: Tensor, grad: Tensor) -> Tensor:
        """Gradient of one tile of logits, ``(one-hot - softmax) grad / temperature``; ``total`` is the log-sum-exp."""
        grad = grad[r] / self.temperature
        out = self.logits(r, c).sub_(total[r, None]).exp_().mul_(-grad[:, None])
        inside, place = self.place(r, c)
        return out.scatter_add_(1, place, torch.where(inside, grad, 0)[:, None])


def _forward(layer: _Layer, memory: int) -> tuple[Tensor, Tensor]:
    """Log-prob of each label, and the log-sum-exp of each row, ``(N,)`` both."""
    picked = as_float(layer.hidden.new_zeros(layer.hidden.shape[0]))
    total = torch.full_like(picked, -torch.inf)
    rows, columns = _tiles(layer.hidden, layer.weight, memory)
    for c in columns:
        for r in rows:
            z = layer.logits(r, c)
            inside, place = layer.place(r, c)
            picked[r] = torch.where(inside, z.gather(1, place)[:, 0], picked[r])
            total[r] = torch.logaddexp(total[r], z.logsumexp(1))
    return picked - total, total


def _backward(layer: _Layer, memory: int, total: Tensor, grad: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of hidden, weight and bias, each None if not needed."""
    hidden = torch.zeros_like(layer.hidden, dtype=total.dtype) if wanted[0] else None
    weight = torch.empty_like(layer.weight) if wanted[1] else None
    bias = torch.empty_like(layer.bias) if wanted[2] and layer.bias is not None else None
    rows, columns = _tiles(layer.hidden, layer.weight, memory)
    for c in columns:
        words, shift = torch.zeros_like(layer.weight[c], dtype=total.dtype), total.new_zeros(c.stop - c.start)
        for r in rows:
            delta = layer.delta(r, c, total, grad)
            shift += delta.sum(0)
            delta = delta.to(layer.hidden.dtype)
            if hidden is not None:
                hidden[r] += delta @ layer.columns(c)
            if weight is not None:
                words += delta.T @ layer.hidden[r]
        if weight is not None:
            weight[c] = words
        if bias is not None:
            bias[c] = shift
    return [None if hidden is None else hidden.to(layer.hidden.dtype), weight, bias]


class _LinearLogProb(torch.autograd.Function):
    """``hidden (N, H), weight (V, H), bias (V,) or None, labels (N,) -> (N,)``, never under autocast."""

    @staticmethod
    def forward(ctx: Any, memory: int, temperature: float, labels: Tensor, *inputs: Any) -> Tensor:
        """Keeps the inputs and the log-sum-exp of each row."""
        hidden, weight, bias = inputs
        ctx.memory, ctx.temperature = memory, temperature
        with torch.autocast(labels.device.type, enabled=False):
            out, total = _forward(_Layer(hidden, weight, bias, labels, temperature), memory)
        ctx.save_for_backward(hidden, weight, bias, labels, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Computes each tile of logits again."""
        hidden, weight, bias, labels, total = ctx.saved_tensors
        layer = _Layer(hidden, weight, bias, labels, ctx.temperature)
        with torch.autocast(total.device.type, enabled=False):
            return None, None, None, *_backward(layer, ctx.memory, total, grad, ctx.needs_input_grad[3:])


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> None:
    check_floating(hidden=hidden, weight=weight)
    shapes = f"got hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, labels {tuple(labels.shape)}"
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[1:] or hidden.shape[:-1] != labels.shape:
        raise ValueError(f"expected hidden (..., H), weight (V, H) and labels (...), {shapes}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"expected bias (V,) for weight (V, H), {shapes}, bias {tuple(bias.shape)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are token ids, of an integer type, got {labels.dtype}")


def linear_log_prob(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    ignore_index: int = -100,
    memory: int = 128 * 2**20,
) -> Tensor:
    """Return ``log softmax((hidden weight^T + bias) / temperature)`` at the labels, without the full matrix of logits.

    Values and gradients equal those of the plain form, at 4/3 of its matrix products. Matrix products are taken in the
    type of ``hidden``, everything else in fp32 (fp64 kept), also under autocast. Ignored positions, NaN included, do
    not affect values or gradients. Not twice differentiable.

    Args:
        hidden: ``(B, T, H)``, ``(N, H)`` or any ``(..., H)``; position t predicts ``labels[t]``: shift a causal model's
            states by one against its tokens.
        weight: ``(V, H)``, the output embedding; if it is frozen, its gradient is not computed.
        labels: ``(...)`` token ids in [0, V), or ``ignore_index``.
        bias: ``(V,)`` or None.
        temperature: > 0, the sampling temperature.
        ignore_index: label of ignored positions.
        memory: bytes for a tile of logits and its temporaries.

    Returns:
        ``(...)`` fp32 (fp64 kept), in nats; 0 where ignored.

    Raises:
        ValueError: shapes or types do not fit, a label is not in [0, V), or temperature or memory is not positive.
    """
    _check(hidden, weight, labels, bias)
    check_positive(temperature=temperature, memory=memory)
    valid = labels != ignore_index
    chosen = labels[valid].long()
    if chosen.numel() and not (0 <= int(chosen.min()) and int(chosen.max()) < weight.shape[0]):
        raise ValueError(
            f"labels must be in [0, {weight.shape[0]}) or {ignore_index}, "
            f"got {int(chosen.min())} to {int(chosen.max())}"
        )
    found = _LinearLogProb.apply(memory, temperature, chosen, hidden[valid], weight, bias)
    return found.new_zeros(labels.shape).masked_scatter(valid, found)
