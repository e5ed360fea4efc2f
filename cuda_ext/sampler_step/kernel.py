"""The step in Triton: one program per sample and block of elements; sums over blocks are added afterwards, in order.

Whatever the types in memory, the arithmetic is float32. The partial sums make the result independent of scheduling:
there are no atomics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffalign.cuda_ext.resources import Variant
from diffalign.cuda_ext.sampler_step.reference import finish
from diffalign.cuda_ext.support import check_interpretable

BLOCK = 2048
WARPS = 8


@triton.jit
def forward_kernel(
    cond, uncond, x, given, reference, rows, next_x, squares, gaps, count, blocks,
    HAS_UNCOND: tl.constexpr, HAS_REFERENCE: tl.constexpr, DRAW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one sample: next_x, and its part of both sums."""
    sample, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    within = block * BLOCK + tl.arange(0, BLOCK)
    inside = within < count
    at = sample * count + within
    a, b = tl.load(rows + 4 * sample), tl.load(rows + 4 * sample + 1)
    s, w = tl.load(rows + 4 * sample + 2), tl.load(rows + 4 * sample + 3)
    v = tl.load(cond + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_UNCOND:
        base = tl.load(uncond + at, mask=inside, other=0.0).to(tl.float32)
        v = base + w * (v - base)
    mean = a * tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + b * v
    outcome = tl.load(given + at, mask=inside, other=0.0)
    if DRAW:
        outcome = (mean + s * outcome.to(tl.float32)).to(next_x.dtype.element_ty)
        tl.store(next_x + at, outcome, mask=inside)
    error = tl.where(inside, outcome.to(tl.float32) - mean, 0.0)
    tl.store(squares + sample * blocks + block, tl.sum(error * error, axis=0))
    if HAS_REFERENCE:
        gap = b * (v - tl.load(reference + at, mask=inside, other=0.0).to(tl.float32))
        gap = tl.where(inside, gap, 0.0)
        tl.store(gaps + sample * blocks + block, tl.sum(gap * gap, axis=0))


@triton.jit
def backward_kernel(
    grad_next, grad_rows, cond, uncond, x, next_x, reference, rows, of_cond, of_uncond, of_x, count,
    HAS_UNCOND: tl.constexpr, HAS_REFERENCE: tl.constexpr, HAS_GRAD_NEXT: tl.constexpr, WANT_X: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one sample: gradients of cond, uncond and x."""
    sample, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    within = block * BLOCK + tl.arange(0, BLOCK)
    inside = within < count
    at = sample * count + within
    a, b, w = tl.load(rows + 4 * sample), tl.load(rows + 4 * sample + 1), tl.load(rows + 4 * sample + 3)
    v = tl.load(cond + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_UNCOND:
        base = tl.load(uncond + at, mask=inside, other=0.0).to(tl.float32)
        v = base + w * (v - base)
    mean = a * tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + b * v
    error = tl.load(next_x + at, mask=inside, other=0.0).to(tl.float32) - mean
    density = tl.load(grad_rows + 2 * sample) * error
    if HAS_GRAD_NEXT:
        density += tl.load(grad_next + at, mask=inside, other=0.0).to(tl.float32)
    prediction = b * density
    if HAS_REFERENCE:
        gap = v - tl.load(reference + at, mask=inside, other=0.0).to(tl.float32)
        prediction += b * tl.load(grad_rows + 2 * sample + 1) * gap
    if HAS_UNCOND:
        tl.store(of_uncond + at, ((1.0 - w) * prediction).to(of_uncond.dtype.element_ty), mask=inside)
        prediction = w * prediction
    tl.store(of_cond + at, prediction.to(of_cond.dtype.element_ty), mask=inside)
    if WANT_X:
        tl.store(of_x + at, (a * density).to(of_x.dtype.element_ty), mask=inside)


def _dense(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def forward(
    cond: Tensor,
    uncond: Tensor | None,
    x: Tensor,
    given: Tensor,
    reference: Tensor | None,
    rows: Tensor,
    draw: bool,
    total: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.forward`, float32, float16 and bfloat16."""
    check_interpretable(cond, uncond, x, given, reference)
    cond, uncond, x, given, reference = _dense(cond, uncond, x, given, reference)
    samples, count = x.shape[0], x[:1].numel()
    next_x = torch.empty_like(x) if draw else x.new_empty(0)
    if not samples:
        return next_x, rows.new_empty(0), rows.new_empty(0)
    blocks = triton.cdiv(count, BLOCK)
    squares = rows.new_empty(samples, blocks)
    gaps = torch.zeros_like(squares) if reference is None else torch.empty_like(squares)
    forward_kernel[(samples, blocks)](
        cond, uncond, x, given, reference, rows, next_x, squares, gaps, count, blocks,
        HAS_UNCOND=uncond is not None, HAS_REFERENCE=reference is not None, DRAW=draw, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return next_x, *finish(squares.sum(1), gaps.sum(1), rows[:, 2], count, total)


def backward(
    grad_next: Tensor | None,
    grad_rows: Tensor,
    cond: Tensor,
    uncond: Tensor | None,
    x: Tensor,
    next_x: Tensor,
    reference: Tensor | None,
    rows: Tensor,
    want_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.backward`, float32, float16 and bfloat16."""
    check_interpretable(grad_next, cond, uncond, x, next_x, reference)
    grad_next, cond, uncond, x, next_x, reference = _dense(grad_next, cond, uncond, x, next_x, reference)
    samples, count = x.shape[0], x[:1].numel()
    of_cond, of_x = torch.empty_like(cond), torch.empty_like(x) if want_x else x.new_empty(0)
    of_uncond = x.new_empty(0) if uncond is None else torch.empty_like(uncond)
    if samples:
        backward_kernel[(samples, triton.cdiv(count, BLOCK))](
            grad_next, grad_rows.contiguous(), cond, uncond, x, next_x, reference, rows, of_cond, of_uncond, of_x,
            count, HAS_UNCOND=uncond is not None, HAS_REFERENCE=reference is not None,
            HAS_GRAD_NEXT=grad_next is not None, WANT_X=want_x, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return of_cond, of_uncond, of_x


def variants() -> Iterator[Variant]:
    """What is compiled to check registers: bf16 predictions, float32 latents, with everything and with the least."""
    floats = {"rows": "*fp32", "count": "i32"}
    for full in (True, False):
        latents = {"cond": "*bf16", "x": "*fp32", "uncond": "*bf16" * full or None, "reference": "*bf16" * full or None}
        flags = {"HAS_UNCOND": full, "HAS_REFERENCE": full, "BLOCK": BLOCK}
        tail, options = "full" if full else "least", {"num_warps": WARPS}
        sums = {"given": "*fp32", "next_x": "*fp32", "squares": "*fp32", "gaps": "*fp32", "blocks": "i32"}
        types, constants = {**latents, **floats, **sums}, {**flags, "DRAW": True}
        yield Variant(f"sampler_step forward {tail}", forward_kernel, types, constants, options)
        grads = {"grad_next": "*fp32" * full or None, "grad_rows": "*fp32", "next_x": "*fp32"}
        outputs = {"of_cond": "*bf16", "of_uncond": "*bf16", "of_x": "*fp32"}
        types, constants = {**latents, **floats, **grads, **outputs}, {**flags, "HAS_GRAD_NEXT": full, "WANT_X": full}
        yield Variant(f"sampler_step backward {tail}", backward_kernel, types, constants, options)
