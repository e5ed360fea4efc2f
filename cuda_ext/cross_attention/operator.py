"""The registered operator of cross-attention, its gradient, what the kernels take, and the public function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from diffalign.cuda_ext.cross_attention import reference as plain
from diffalign.cuda_ext.support import check_one_device, device_reason, dtype_reason

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HEAD_DIMS = (40, 64, 72, 80, 88, 128, 160)
MOST_KEYS = 512


def reason(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Why the kernels do not run on these tensors, None if they do; then torch's own attention computes."""
    if q.shape[-1] not in HEAD_DIMS:
        return f"head dimension {q.shape[-1]} is not one of {', '.join(map(str, HEAD_DIMS))}"
    if k.shape[2] > MOST_KEYS:
        return f"{k.shape[2]} keys are more than {MOST_KEYS}"
    return dtype_reason((q, k, v), KERNEL_DTYPES) or device_reason(q.device)


def _implementation(q: Tensor, k: Tensor, v: Tensor) -> Any:
    if reason(q, k, v) is not None:
        return plain
    from diffalign.cuda_ext.cross_attention import kernel

    return kernel


@torch.library.custom_op("diffalign::cross_attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, lens: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    with torch.autocast(q.device.type, enabled=False):
        found: tuple[Tensor, Tensor] = _implementation(q, k, v).forward(q, k, v, lens, scale)
    return found


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lens: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=plain.wide(q.dtype))


@torch.library.custom_op("diffalign::cross_attention_backward", mutates_args=())
def _attention_backward(
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
    backward = _implementation(q, k, v).backward
    with torch.autocast(q.device.type, enabled=False):
        found: tuple[Tensor, Tensor, Tensor] = backward(grad, delta, lse, q, k, v, lens, scale, want_q, want_kv)
    return found


@_attention_backward.register_fake
def _(
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
    of_k, of_v = (tensor.new_empty(tensor.shape if want_kv else (0,)) for tensor in (k, v))
    return q.new_empty(q.shape if want_q else (0,)), of_k, of_v


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, lens, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, lens, *output)


def _differentiate(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, lens, out, lse = ctx.saved_tensors
    want_q, want_kv = ctx.needs_input_grad[0], ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    delta = (grad.to(lse.dtype) * out.to(lse.dtype)).sum(-1) - grad_lse
    found = _attention_backward(grad, delta, lse, q, k, v, lens, ctx.scale, want_q, want_kv)
    return found[0] if want_q else None, *(found[1:] if want_kv else (None, None)), None, None


_attention.register_autograd(_differentiate, setup_context=_setup)


def cross_attention(
    q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Sequence[int] | Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Attention of queries to the first `kv_lens` keys of their sample, `(B, H, Lq, D)`.

    Where the kernels do not run (see `reason`), torch's own attention computes. With frozen keys and values the
    backward pass computes the gradient of the queries alone. Not twice differentiable.

    Args:
        q: `(B, H, Lq, D)`.
        k: `(B, H, Lk, D)`.
        v: `(B, H, Lk, D)`.
        kv_lens: `(B,)` keys of each sample, 0 (its output is 0) to Lk, as numbers or a tensor on the CPU, so that they
            can be checked without waiting for a GPU; None: all. What lies behind them, NaN too, reaches nothing.
        scale: of the scores; None: ``D ** -0.5``.

    Raises:
        ValueError: shapes, types or devices do not fit, or a length is outside 0 to Lk.
    """
    _check(q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    lens = None if kv_lens is None else _lengths(kv_lens, k)
    if reason(q, k, v) is not None:
        return _fallback(q, k, v, lens, scale)
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (tensor.to(torch.get_autocast_dtype(q.device.type)) for tensor in (q, k, v))
    out: Tensor = _attention(q, k, v, lens, scale)[0]
    return out


def _fallback(q: Tensor, k: Tensor, v: Tensor, lens: Tensor | None, scale: float) -> Tensor:
    """torch's own attention; a sample without keys sees its first one, whose value is 0."""
    seen = plain.visible(lens, k)
    if seen is None or lens is None:
        return scaled_dot_product_attention(q, k, v, scale=scale)
    if not k.shape[2]:
        return q * 0
    k, v = torch.where(seen, k, 0.0), torch.where(seen, v, 0.0)
    mask = plain.visible(lens.clamp(min=1), k)
    assert mask is not None
    return scaled_dot_product_attention(q, k, v, attn_mask=mask.mT, scale=scale)


def _lengths(given: Sequence[int] | Tensor, k: Tensor) -> Tensor:
    """`(B,)` int32 on the device of the keys, checked."""
    if isinstance(given, Tensor) and (given.device.type != "cpu" or given.is_floating_point()):
        raise ValueError(
            f"kv_lens are whole numbers on the CPU, got {given.dtype} on {given.device}: keep them where the prompts "
            "are tokenised"
        )
    lens = torch.as_tensor(given, dtype=torch.int32)
    if lens.shape != k.shape[:1] or (len(lens) and not 0 <= int(lens.min()) <= int(lens.max()) <= k.shape[2]):
        raise ValueError(f"kv_lens must be {k.shape[0]} numbers from 0 to {k.shape[2]}, got {lens.tolist()}")
    return lens.to(k.device, non_blocking=True)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    shapes = f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    fits = q.dim() == 4 and k.shape == v.shape and k.dim() == 4
    if not fits or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3] or not q.shape[3]:
        raise ValueError(f"expected q (B, H, Lq, D), k and v (B, H, Lk, D), {shapes}")
    if len({q.dtype, k.dtype, v.dtype}) > 1 or not q.is_floating_point():
        raise ValueError(f"q, k and v must have one floating-point type, got {q.dtype}, {k.dtype}, {v.dtype}")
    check_one_device(q=q, k=k, v=v)
