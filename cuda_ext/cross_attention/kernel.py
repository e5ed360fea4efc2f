"""Cross-attention in Triton for at most 512 keys: forward, queries' gradient, and keys' and values' gradient.

A head dimension that is no power of two is two tiles, 40 = 32 + 8 (in a tile of 16), 72 = 64 + 8 (16), 80 = 64 + 16,
88 = 64 + 24 (32), 160 = 128 + 32, instead of one tile of the next power. With few keys a gradient of the keys by blocks
of keys would leave most of a GPU idle: the queries are split over further programs, whose partial sums are added
afterwards, in order. There are no atomics. Scores are kept in base 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffalign.cuda_ext.cross_attention.operator import HEAD_DIMS
from diffalign.cuda_ext.resources import ARCHITECTURES, Variant
from diffalign.cuda_ext.support import check_interpretable

LOG2_E = 1.4426950408889634
PROGRAMS = 264
"""Programs that keep a GPU of 132 multiprocessors busy: the queries of the keys' gradient are split until there are so
many.
"""
CONFIGS: dict[str, dict[int, tuple[int, int, int]]] = {
    "forward": dict.fromkeys(HEAD_DIMS, (128, 64, 8)),
    "query": {
        **dict.fromkeys((40, 64, 72, 80), (128, 64, 8)),
        128: (64, 64, 8),
        **dict.fromkeys((88, 160), (64, 32, 8)),
    },
    "key": {
        **dict.fromkeys((40, 64), (64, 64, 4)),
        **dict.fromkeys((72, 80), (64, 64, 8)),
        128: (32, 64, 8),
        **dict.fromkeys((88, 160), (64, 16, 8)),
    },
}
"""(M, N, warps) of `config` by kernel and head dimension."""


@triton.jit
def _load(base, rows, stride, columns, limit, D: tl.constexpr):
    """A tile of a matrix, 0 outside."""
    inside = (rows[:, None] < limit) & (columns[None, :] < D)
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store(base, rows, stride, columns, limit, tile, D: tl.constexpr):
    """Writes a tile of a matrix in the type of its memory."""
    inside = (rows[:, None] < limit) & (columns[None, :] < D)
    tl.store(base + rows[:, None] * stride + columns[None, :], tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _keys(lens, sample, most, HAS_LENS: tl.constexpr):
    """Number of keys of a sample."""
    if HAS_LENS:
        most = tl.minimum(tl.load(lens + sample), most)
    return most


@triton.jit
def forward_kernel(
    q, k, v, out, lse, lens, q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, heads, queries, keys, scale,
    HAS_LENS: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of M queries of one head; `scale` is in base 2."""
    pair, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sample, head = pair // heads, pair % heads
    most = _keys(lens, sample, keys, HAS_LENS)
    rows, d1, d2 = block * M + tl.arange(0, M), tl.arange(0, D1), D1 + tl.arange(0, D2)
    q += sample * q_b + head * q_h
    k += sample * k_b + head * k_h
    v += sample * v_b + head * v_h
    q1, q2 = _load(q, rows, q_m, d1, queries, D), _load(q, rows, q_m, d2, queries, D)
    top, total = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.float32)
    acc1, acc2 = tl.zeros((M, D1), tl.float32), tl.zeros((M, D2), tl.float32)
    for start in range(0, most, N):
        cols = start + tl.arange(0, N)
        s = tl.dot(q1, tl.trans(_load(k, cols, k_n, d1, most, D)), input_precision="ieee")
        if D1 < D:
            s += tl.dot(q2, tl.trans(_load(k, cols, k_n, d2, most, D)), input_precision="ieee")
        s = tl.where(cols[None, :] < most, s * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(s, axis=1))
        p, shrink = tl.exp2(s - higher[:, None]), tl.exp2(top - higher)
        total = total * shrink + tl.sum(p, axis=1)
        p = p.to(v.dtype.element_ty)
        acc1 = acc1 * shrink[:, None] + tl.dot(p, _load(v, cols, v_n, d1, most, D), input_precision="ieee")
        if D1 < D:
            acc2 = acc2 * shrink[:, None] + tl.dot(p, _load(v, cols, v_n, d2, most, D), input_precision="ieee")
        top = higher
    share = 1.0 / tl.where(total > 0, total, 1.0)
    out += pair * queries * D
    _store(out, rows, D, d1, queries, acc1 * share[:, None], D)
    if D1 < D:
        _store(out, rows, D, d2, queries, acc2 * share[:, None], D)
    logs = tl.where(total > 0, top + tl.log2(tl.where(total > 0, total, 1.0)), float("-inf"))
    tl.store(lse + pair * queries + rows, logs / 1.4426950408889634, mask=rows < queries)


@triton.jit
def query_kernel(
    grad, delta, lse, q, k, v, of_q, lens, g_b, g_h, g_m, q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n,
    heads, queries, keys, scale,
    HAS_LENS: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Gradient of M queries of one head; `scale` is that of the scores."""
    pair, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sample, head = pair // heads, pair % heads
    most = _keys(lens, sample, keys, HAS_LENS)
    rows, d1, d2 = block * M + tl.arange(0, M), tl.arange(0, D1), D1 + tl.arange(0, D2)
    grad += sample * g_b + head * g_h
    q += sample * q_b + head * q_h
    k += sample * k_b + head * k_h
    v += sample * v_b + head * v_h
    q1, q2 = _load(q, rows, q_m, d1, queries, D), _load(q, rows, q_m, d2, queries, D)
    g1, g2 = _load(grad, rows, g_m, d1, queries, D), _load(grad, rows, g_m, d2, queries, D)
    at, real = pair * queries + rows, rows < queries
    logs, means = tl.load(lse + at, mask=real, other=0.0), tl.load(delta + at, mask=real, other=0.0)
    acc1, acc2 = tl.zeros((M, D1), tl.float32), tl.zeros((M, D2), tl.float32)
    for start in range(0, most, N):
        cols = start + tl.arange(0, N)
        k1, k2 = _load(k, cols, k_n, d1, most, D), _load(k, cols, k_n, d2, most, D)
        s = tl.dot(q1, tl.trans(k1), input_precision="ieee")
        dp = tl.dot(g1, tl.trans(_load(v, cols, v_n, d1, most, D)), input_precision="ieee")
        if D1 < D:
            s += tl.dot(q2, tl.trans(k2), input_precision="ieee")
            dp += tl.dot(g2, tl.trans(_load(v, cols, v_n, d2, most, D)), input_precision="ieee")
        p = tl.exp2((s * scale - logs[:, None]) * 1.4426950408889634)
        ds = tl.where(cols[None, :] < most, p * (dp - means[:, None]), 0.0).to(k.dtype.element_ty)
        acc1 += tl.dot(ds, k1, input_precision="ieee")
        if D1 < D:
            acc2 += tl.dot(ds, k2, input_precision="ieee")
    of_q += pair * queries * D
    _store(of_q, rows, D, d1, queries, acc1 * scale, D)
    if D1 < D:
        _store(of_q, rows, D, d2, queries, acc2 * scale, D)


@triton.jit
def key_kernel(
    grad, delta, lse, q, k, v, of_k, of_v, lens, g_b, g_h, g_m, q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n,
    heads, queries, keys, scale, span,
    HAS_LENS: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """What `span` queries add to the gradients of N keys and values of one head."""
    pair, block, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    sample, head = pair // heads, pair % heads
    most = _keys(lens, sample, keys, HAS_LENS)
    cols, d1, d2 = block * N + tl.arange(0, N), tl.arange(0, D1), D1 + tl.arange(0, D2)
    grad += sample * g_b + head * g_h
    q += sample * q_b + head * q_h
    k += sample * k_b + head * k_h
    v += sample * v_b + head * v_h
    k1, k2 = _load(k, cols, k_n, d1, most, D), _load(k, cols, k_n, d2, most, D)
    v1, v2 = _load(v, cols, v_n, d1, most, D), _load(v, cols, v_n, d2, most, D)
    k_acc1, k_acc2 = tl.zeros((N, D1), tl.float32), tl.zeros((N, D2), tl.float32)
    v_acc1, v_acc2 = tl.zeros((N, D1), tl.float32), tl.zeros((N, D2), tl.float32)
    end = tl.minimum((split + 1) * span, queries)
    for start in range(split * span, end, M):
        rows = start + tl.arange(0, M)
        q1, q2 = _load(q, rows, q_m, d1, end, D), _load(q, rows, q_m, d2, end, D)
        g1, g2 = _load(grad, rows, g_m, d1, end, D), _load(grad, rows, g_m, d2, end, D)
        at, real = pair * queries + rows, rows < end
        logs, means = tl.load(lse + at, mask=real, other=0.0), tl.load(delta + at, mask=real, other=0.0)
        s = tl.dot(q1, tl.trans(k1), input_precision="ieee")
        dp = tl.dot(g1, tl.trans(v1), input_precision="ieee")
        if D1 < D:
            s += tl.dot(q2, tl.trans(k2), input_precision="ieee")
            dp += tl.dot(g2, tl.trans(v2), input_precision="ieee")
        both = real[:, None] & (cols[None, :] < most)
        p = tl.where(both, tl.exp2((s * scale - logs[:, None]) * 1.4426950408889634), 0.0)
        ds = tl.trans(tl.where(both, p * (dp - means[:, None]), 0.0).to(q.dtype.element_ty))
        p = tl.trans(p.to(grad.dtype.element_ty))
        k_acc1 += tl.dot(ds, q1, input_precision="ieee")
        v_acc1 += tl.dot(p, g1, input_precision="ieee")
        if D1 < D:
            k_acc2 += tl.dot(ds, q2, input_precision="ieee")
            v_acc2 += tl.dot(p, g2, input_precision="ieee")
    here = (split * tl.num_programs(0) + pair) * keys * D
    _store(of_k + here, cols, D, d1, keys, k_acc1 * scale, D)
    _store(of_v + here, cols, D, d1, keys, v_acc1, D)
    if D1 < D:
        _store(of_k + here, cols, D, d2, keys, k_acc2 * scale, D)
        _store(of_v + here, cols, D, d2, keys, v_acc2, D)


def tiles(d: int) -> dict[str, int]:
    """Widths of the two tiles of a head dimension; a power of two has one, and a second that is never read."""
    first = 1 << (d.bit_length() - 1)
    return {"D": d, "D1": first, "D2": max(16, triton.next_power_of_2(d - first))}


def config(kind: str, d: int, hopper: bool) -> dict[str, int]:
    """Queries M and keys N of a tile, and warps: the largest that spill no registers (`resources.json`)."""
    m, n, warps = CONFIGS[kind][d]
    if (kind, d) == ("key", 160) and hopper:
        m, n, warps = 32, 64, 8
    return {"M": m, "N": n, "num_warps": warps}


def _last_dense(*tensors: Tensor) -> list[Tensor]:
    return [tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in tensors]


def _constants(kind: str, q: Tensor, lens: Tensor | None) -> dict[str, Any]:
    d, hopper = q.shape[-1], q.is_cuda and torch.cuda.get_device_capability(q.device) >= (9, 0)
    return {"HAS_LENS": lens is not None, **tiles(d), **config(kind, d, hopper)}


def forward(q: Tensor, k: Tensor, v: Tensor, lens: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """As `reference.forward`, for what `operator.reason` lets through."""
    check_interpretable(q, k, v)
    q, k, v = _last_dense(q, k, v)
    samples, heads, queries, _ = q.shape
    out, lse = q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=torch.float32)
    constants = _constants("forward", q, lens)
    if lse.numel():
        forward_kernel[(samples * heads, triton.cdiv(queries, constants["M"]))](
            q, k, v, out, lse, lens, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            heads, queries, k.shape[2], scale * LOG2_E, **constants,
        )  # fmt: skip
    return out, lse


def backward(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lens: Tensor | None,
    scale: float,
    want_q: bool,
    want_kv: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.backward`; two of its five products are left out when the gradients of k and v are not wanted."""
    check_interpretable(grad, q, k, v)
    grad, q, k, v = _last_dense(grad, q, k, v)
    shared = (grad, delta.contiguous(), lse, q, k, v)
    strides = [stride for tensor in (grad, q, k, v) for stride in tensor.stride()[:3]]
    of_q = query_gradient(shared, strides, lens, scale) if want_q else q.new_empty(0)
    of_k, of_v = key_gradient(shared, strides, lens, scale) if want_kv else (k.new_empty(0), v.new_empty(0))
    return of_q, of_k, of_v


def query_gradient(shared: tuple[Tensor, ...], strides: list[int], lens: Tensor | None, scale: float) -> Tensor:
    """Of the queries, `(B, H, Lq, D)`; `shared` is grad, delta, lse, q, k and v, `strides` are those of rank 4."""
    q, k = shared[3], shared[4]
    samples, heads, queries, _ = q.shape
    of_q, constants = q.new_empty(q.shape), _constants("query", q, lens)
    if of_q.numel():
        query_kernel[(samples * heads, triton.cdiv(queries, constants["M"]))](
            *shared, of_q, lens, *strides, heads, queries, k.shape[2], scale, **constants
        )
    return of_q


def key_gradient(
    shared: tuple[Tensor, ...], strides: list[int], lens: Tensor | None, scale: float, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """Of keys and values, `(B, H, Lk, D)`, the queries in `splits` parts; None: as many as fill the GPU."""
    q, k, v = shared[3:]
    (samples, heads, queries, d), keys = q.shape, k.shape[2]
    constants = _constants("key", q, lens)
    tile, rows, pairs = triton.cdiv(keys, constants["N"]), triton.cdiv(queries, constants["M"]), samples * heads
    splits = min(rows, triton.cdiv(PROGRAMS, max(pairs * tile, 1))) if splits is None else splits
    span = triton.cdiv(rows, max(splits, 1)) * constants["M"]
    splits = triton.cdiv(queries, span) if queries else 0
    parts = q.new_empty((2, splits, samples, heads, keys, d), dtype=torch.float32)
    if parts.numel():
        key_kernel[(pairs, tile, splits)](
            *shared, *parts, lens, *strides, heads, queries, keys, scale, span, **constants
        )  # fmt: skip
    of_k, of_v = parts.sum(1)
    return of_k.to(k.dtype), of_v.to(v.dtype)


def variants() -> Iterator[Variant]:
    """What is compiled to check registers: every head dimension in bf16, with lengths."""
    strides = {f"{name}_{axis}": "i32" for name in "gqkv" for axis in ("b", "h", "m" if name in "gq" else "n")}
    sizes = {"heads": "i32", "queries": "i32", "keys": "i32", "scale": "fp32", "span": "i32"}
    halves = dict.fromkeys(("grad", "q", "k", "v", "out", "of_q"), "*bf16")
    others = {"delta": "*fp32", "lse": "*fp32", "of_k": "*fp32", "of_v": "*fp32", "lens": "*i32"}
    types = {**strides, **sizes, **halves, **others}
    for d in HEAD_DIMS:
        for kind, kernel in (("forward", forward_kernel), ("query", query_kernel), ("key", key_kernel)):
            own = {argument: type for argument, type in types.items() if argument in kernel.arg_names}
            for architecture in ARCHITECTURES:
                constants = {"HAS_LENS": True, **tiles(d), **config(kind, d, hopper=architecture >= 90)}
                options = {"num_warps": constants.pop("num_warps")}
                yield Variant(f"cross_attention {kind} d{d}", kernel, own, constants, options, (architecture,))
