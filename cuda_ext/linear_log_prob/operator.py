"""The registered operator of token log-probs, its gradient, what the kernels take, and the public function."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffalign.cuda_ext.linear_log_prob import reference as plain
from diffalign.cuda_ext.linear_log_prob.reference import Layer, Rows
from diffalign.cuda_ext.support import check_one_device, device_reason, dtype_reason

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def reason(hidden: Tensor, weight: Tensor) -> str | None:
    """Why the kernels do not run on these tensors, None if they do; then the reference computes."""
    if hidden.dtype != weight.dtype:
        return f"hidden states are {hidden.dtype}, the weight is {weight.dtype}"
    return dtype_reason((hidden, weight), KERNEL_DTYPES) or device_reason(hidden.device)


def _implementation(layer: Layer) -> Any:
    if reason(layer.hidden, layer.weight) is not None:
        return plain
    from diffalign.cuda_ext.linear_log_prob import kernel

    return kernel


@torch.library.custom_op("diffalign::linear_log_prob", mutates_args=())
def _log_prob(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float, memory: int
) -> tuple[Tensor, Tensor]:
    layer = Layer(hidden, weight, bias, labels, temperature)
    with torch.autocast(hidden.device.type, enabled=False):
        found: tuple[Tensor, Tensor] = _implementation(layer).forward(layer, memory)
    return found


@_log_prob.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float, memory: int
) -> tuple[Tensor, Tensor]:
    per_row = hidden.new_empty(hidden.shape[0], dtype=plain.wide(hidden.dtype))
    return per_row, torch.empty_like(per_row)


@torch.library.custom_op("diffalign::linear_log_prob_backward", mutates_args=())
def _log_prob_backward(
    lse: Tensor,
    chosen: Tensor,
    shared: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    temperature: float,
    memory: int,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    layer, rows = Layer(hidden, weight, bias, labels, temperature), Rows(lse, chosen, shared)
    wanted = (want_hidden, want_weight, want_bias)
    with torch.autocast(hidden.device.type, enabled=False):
        found: tuple[Tensor, Tensor, Tensor] = _implementation(layer).backward(layer, rows, memory, wanted)
    return found


@_log_prob_backward.register_fake
def _(
    lse: Tensor,
    chosen: Tensor,
    shared: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    temperature: float,
    memory: int,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    of_bias = weight.new_empty(0) if bias is None or not want_bias else bias.new_empty(bias.shape)
    of_weight = weight.new_empty(weight.shape if want_weight else 0)
    return hidden.new_empty(hidden.shape if want_hidden else 0), of_weight, of_bias


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    hidden, weight, bias, labels, ctx.temperature, ctx.memory = inputs
    ctx.save_for_backward(hidden, weight, bias, labels, output[1])


def _differentiate(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    hidden, weight, bias, labels, lse = ctx.saved_tensors
    wanted = [bool(want) for want in ctx.needs_input_grad[:3]]
    tensors = (lse, grad, grad - grad_lse, hidden, weight, bias, labels)
    found = _log_prob_backward(*tensors, ctx.temperature, ctx.memory, *wanted)
    return *(one if want else None for one, want in zip(found, wanted, strict=True)), None, None, None


_log_prob.register_autograd(_differentiate, setup_context=_setup)


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
    """Return ``log softmax((hidden weight^T + bias) / temperature)`` at the labels, `(...)` float32 (float64 kept).

    The values and gradients of `diffalign.losses.linear_log_prob`, whose arguments these are; a kernel keeps the logits
    in float32 where torch rounds them to half precision. Ignored positions are 0 and take no part. Not twice
    differentiable.

    Args:
        hidden: `(..., H)`; position t has seen the tokens before ``labels[t]``.
        weight: `(V, H)`; if it is frozen, its gradient is not computed.
        labels: `(...)` token ids in [0, V), or `ignore_index`.
        bias: `(V,)` or None.
        temperature: > 0.
        ignore_index: label of the positions to leave out.
        memory: bytes for a tile of logits, or of their gradient.

    Raises:
        ValueError: shapes, types or devices do not fit, a label is not in [0, V), or temperature or memory is not
            positive.
    """
    _check(hidden, weight, labels, bias)
    if not (math.isfinite(temperature) and temperature > 0) or memory < 1:
        raise ValueError(f"temperature and memory must be positive, got {temperature} and {memory}")
    valid = labels != ignore_index
    chosen = labels[valid].long()
    low, high = (int(chosen.min()), int(chosen.max())) if chosen.numel() else (0, 0)
    if not 0 <= low <= high < weight.shape[0]:
        raise ValueError(f"labels must be in [0, {weight.shape[0]}) or {ignore_index}, got {low} to {high}")
    found = _log_prob(hidden[valid], weight, bias, chosen, float(temperature), memory)[0]
    return found.new_zeros(labels.shape).masked_scatter(valid, found)


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> None:
    shapes = f"got hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, labels {tuple(labels.shape)}"
    if weight.dim() != 2 or not weight.numel() or hidden.shape[-1:] != weight.shape[1:]:
        raise ValueError(f"expected hidden (..., H) and weight (V, H), {shapes}")
    if hidden.shape[:-1] != labels.shape or labels.is_floating_point() or labels.dtype is torch.bool:
        raise ValueError(f"expected one token id, of an integer type, per hidden state, {shapes}, {labels.dtype}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"expected bias (V,), {shapes}, bias {tuple(bias.shape)}")
    floats = {"hidden": hidden, "weight": weight, "bias": weight if bias is None else bias}
    if not all(tensor.is_floating_point() for tensor in floats.values()):
        raise ValueError(f"hidden, weight and bias must be floating point, got {[t.dtype for t in floats.values()]}")
    check_one_device(hidden=hidden, weight=weight, labels=labels, bias=bias)
