"""Token log-probs in Triton: forward without logits in memory, and tiles of their gradient for torch's products.

The forward pass splits the vocabulary over programs, each of which keeps a running maximum and sum; their log-sum-exps
are combined afterwards. The backward pass multiplies hidden states and weight again, tile by tile, makes dz of it, and
hands it to torch for the two products with it. There are no atomics.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffalign.cuda_ext.linear_log_prob import reference
from diffalign.cuda_ext.linear_log_prob.reference import Layer, Rows
from diffalign.cuda_ext.resources import Variant
from diffalign.cuda_ext.support import check_interpretable

M, N, K = 128, 128, 32
"""Rows, words and widths of a tile: the largest that spill no registers (`resources.json`)."""
WARPS = 8
PROGRAMS = 528
"""Programs that keep a GPU of 132 multiprocessors busy: the vocabulary is split until there are so many."""


@triton.jit
def _logits(
    hidden, weight, bias, rows, words, count, stop, width, inverse,
    HAS_BIAS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """A tile of logits over the temperature, float32; rows and words outside are those of zeros."""
    acc = tl.zeros((M, N), tl.float32)
    in_rows, in_words = rows < count, words < stop
    hidden += rows[:, None].to(tl.int64) * width
    weight += words[:, None].to(tl.int64) * width
    for start in range(0, width, K):
        at = start + tl.arange(0, K)
        h = tl.load(hidden + at[None, :], mask=in_rows[:, None] & (at[None, :] < width), other=0.0)
        w = tl.load(weight + at[None, :], mask=in_words[:, None] & (at[None, :] < width), other=0.0)
        acc += tl.dot(h, tl.trans(w), input_precision="ieee")
    if HAS_BIAS:
        acc += tl.load(bias + words, mask=in_words, other=0.0).to(tl.float32)[None, :]
    return acc * inverse


@triton.jit
def forward_kernel(
    hidden, weight, bias, labels, chosen, parts, count, vocabulary, width, span, inverse,
    HAS_BIAS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Log-sum-exp of M rows over `span` words, and the logit of the labels among them."""
    block, split = tl.program_id(0), tl.program_id(1)
    rows, stop = block * M + tl.arange(0, M), tl.minimum((split + 1) * span, vocabulary)
    wanted = tl.load(labels + rows, mask=rows < count, other=-1)
    top, total = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.float32)
    found = tl.zeros((M,), tl.float32)
    for start in range(split * span, stop, N):
        words = start + tl.arange(0, N)
        z = _logits(hidden, weight, bias, rows, words, count, stop, width, inverse, HAS_BIAS, M, N, K)
        found += tl.sum(tl.where(words[None, :] == wanted[:, None], z, 0.0), axis=1)
        z = tl.where(words[None, :] < stop, z * 1.4426950408889634, float("-inf"))
        higher = tl.maximum(top, tl.max(z, axis=1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)  # a bias may rule out every word so far
        total = total * tl.exp2(top - finite) + tl.sum(tl.exp2(z - finite[:, None]), axis=1)
        top = higher
    logs = tl.where(total > 0, top + tl.log2(tl.where(total > 0, total, 1.0)), top)
    tl.store(parts + split * count + rows, logs / 1.4426950408889634, mask=rows < count)
    owned = (wanted >= split * span) & (wanted < stop)
    tl.store(chosen + rows, found, mask=(rows < count) & owned)


@triton.jit
def tile_kernel(
    hidden, weight, bias, labels, lse, g_chosen, g_shared, dz, sums, count, first, stop, width, inverse,
    HAS_BIAS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """dz of M rows and N words, and its sums over the rows."""
    block, rows = tl.program_id(0), tl.program_id(0) * M + tl.arange(0, M)
    words = first + tl.program_id(1) * N + tl.arange(0, N)
    z = _logits(hidden, weight, bias, rows, words, count, stop, width, inverse, HAS_BIAS, M, N, K)
    real = rows < count
    logs = tl.load(lse + rows, mask=real, other=0.0)
    mine, shared = tl.load(g_chosen + rows, mask=real, other=0.0), tl.load(g_shared + rows, mask=real, other=0.0)
    wanted = tl.load(labels + rows, mask=real, other=-1)
    p = tl.exp2((z - logs[:, None]) * 1.4426950408889634)
    value = (tl.where(words[None, :] == wanted[:, None], mine[:, None], 0.0) - p * shared[:, None]) * inverse
    inside = real[:, None] & (words[None, :] < stop)
    value = tl.where(inside, value, 0.0)
    columns = words - first
    at = rows[:, None].to(tl.int64) * (stop - first) + columns[None, :]
    tl.store(dz + at, value.to(dz.dtype.element_ty), mask=inside)
    tl.store(sums + block * (stop - first) + columns, tl.sum(value, axis=0), mask=words < stop)


def _dense(layer: Layer) -> Layer:
    bias = None if layer.bias is None else layer.bias.contiguous()
    tensors = (layer.hidden.contiguous(), layer.weight.contiguous(), bias, layer.labels.contiguous())
    check_interpretable(*tensors)
    return Layer(*tensors, layer.temperature)


def forward(layer: Layer, memory: int, splits: int | None = None) -> tuple[Tensor, Tensor]:
    """As `reference.forward`, for what `operator.reason` lets through; needs no memory for logits.

    Args:
        layer: See there.
        memory: Not needed.
        splits: Parts of the vocabulary; None: as many as fill the GPU.
    """
    layer = _dense(layer)
    hidden, weight, bias, labels, temperature = layer
    (count, width), vocabulary = hidden.shape, weight.shape[0]
    if not count:
        return hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.float32)
    blocks = triton.cdiv(count, M)
    splits = triton.cdiv(PROGRAMS, blocks) if splits is None else splits
    span = triton.cdiv(triton.cdiv(vocabulary, splits), N) * N
    splits = triton.cdiv(vocabulary, span)
    chosen = hidden.new_empty(count, dtype=torch.float32)
    parts = hidden.new_empty((splits, count), dtype=torch.float32)
    forward_kernel[(blocks, splits)](
        hidden, weight, bias, labels, chosen, parts, count, vocabulary, width, span, 1 / temperature,
        HAS_BIAS=bias is not None, M=M, N=N, K=K, num_warps=WARPS,
    )  # fmt: skip
    lse = parts.logsumexp(0)
    return chosen - lse, lse


def tile(layer: Layer, rows: Rows, c: slice) -> tuple[Tensor, Tensor]:
    """As `reference.tile`."""
    hidden, weight, bias, labels, temperature = layer
    (count, width), columns = hidden.shape, c.stop - c.start
    blocks = triton.cdiv(count, M)
    dz, sums = hidden.new_empty((count, columns)), hidden.new_empty((blocks, columns), dtype=torch.float32)
    if count:
        tile_kernel[(blocks, triton.cdiv(columns, N))](
            hidden, weight, bias, labels, *(row.contiguous() for row in rows), dz, sums, count, c.start, c.stop, width,
            1 / temperature, HAS_BIAS=bias is not None, M=M, N=N, K=K, num_warps=WARPS,
        )  # fmt: skip
    return dz, sums.sum(0)


def backward(layer: Layer, rows: Rows, memory: int, wanted: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.backward`."""
    return reference.backward(_dense(layer), rows, memory, wanted, tile)


def variants() -> Iterator[Variant]:
    """What is compiled to check registers: bf16, with and without a bias."""
    for has_bias in (True, False):
        halves = {"hidden": "*bf16", "weight": "*bf16", "dz": "*bf16", "bias": "*bf16" if has_bias else None}
        floats = dict.fromkeys(("chosen", "parts", "lse", "g_chosen", "g_shared", "sums"), "*fp32")
        numbers = dict.fromkeys(("count", "vocabulary", "width", "span", "first", "stop"), "i32")
        types = {**halves, **floats, **numbers, "labels": "*i64", "inverse": "fp32"}
        constants = {"HAS_BIAS": has_bias, "M": M, "N": N, "K": K}
        for name, kernel in (("forward", forward_kernel), ("tile", tile_kernel)):
            own = {argument: kind for argument, kind in types.items() if argument in kernel.arg_names}
            tail = "bias" if has_bias else "plain"
            yield Variant(f"linear_log_prob {name} {tail}", kernel, own, constants, {"num_warps": WARPS})
