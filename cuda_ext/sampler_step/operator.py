"""The registered operator of a step, its gradient, and the public function."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffalign.cuda_ext.sampler_step import reference as plain
from diffalign.cuda_ext.support import check_one_device, device_reason, dtype_reason

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class StepOut(NamedTuple):
    """A step.

    Attributes:
        next_x: `(B, ...)` in the type of x.
        log_prob: `(B,)` Gaussian log-density of next_x, per element or summed; NaN where the step is deterministic.
        kl: `(B,)` KL divergence to the reference, likewise; 0 without a reference and where the step is deterministic.
    """

    next_x: Tensor
    log_prob: Tensor
    kl: Tensor


def reason(*tensors: Tensor | None) -> str | None:
    """Why the kernel does not run on these tensors, None if it does; then the reference computes."""
    given = [tensor for tensor in tensors if tensor is not None]
    return device_reason(given[0].device) or dtype_reason(given, KERNEL_DTYPES)


def _implementation(*tensors: Tensor | None) -> Any:
    if reason(*tensors) is not None:
        return plain
    from diffalign.cuda_ext.sampler_step import kernel

    return kernel


@torch.library.custom_op("diffalign::sampler_step", mutates_args=())
def _step(
    cond: Tensor,
    uncond: Tensor | None,
    x: Tensor,
    given: Tensor,
    reference: Tensor | None,
    rows: Tensor,
    draw: bool,
    total: bool,
    reparam: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = (cond, uncond, x, given, reference)
    found: tuple[Tensor, Tensor, Tensor] = _implementation(*tensors).forward(*tensors, rows, draw, total)
    return found


@_step.register_fake
def _(
    cond: Tensor,
    uncond: Tensor | None,
    x: Tensor,
    given: Tensor,
    reference: Tensor | None,
    rows: Tensor,
    draw: bool,
    total: bool,
    reparam: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    per_sample = x.new_empty(x.shape[0], dtype=plain.wide(x.dtype))
    return x.new_empty(x.shape if draw else (0,)), per_sample, torch.empty_like(per_sample)


@torch.library.custom_op("diffalign::sampler_step_backward", mutates_args=())
def _step_backward(
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
    tensors = (cond, uncond, x, next_x, reference)
    backward = _implementation(*tensors, grad_next).backward
    found: tuple[Tensor, Tensor, Tensor] = backward(grad_next, grad_rows, *tensors, rows, want_x)
    return found


@_step_backward.register_fake
def _(
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
    of_uncond = x.new_empty(0) if uncond is None else uncond.new_empty(uncond.shape)
    return cond.new_empty(cond.shape), of_uncond, x.new_empty(x.shape if want_x else (0,))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    cond, uncond, x, given, reference, rows, draw, ctx.total, ctx.reparam = inputs
    ctx.save_for_backward(cond, uncond, x, output[0] if draw else given, reference, rows)


def _differentiate(ctx: Any, grad_next: Tensor, grad_log_prob: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
    cond, uncond, x, next_x, reference, rows = ctx.saved_tensors
    count = x[:1].numel()
    grad_rows = plain.weights(grad_log_prob, grad_kl, rows, count, ctx.total, ctx.reparam)
    passed = grad_next if ctx.reparam else None
    want_x = ctx.needs_input_grad[2]
    of_cond, of_uncond, of_x = _step_backward(passed, grad_rows, cond, uncond, x, next_x, reference, rows, want_x)
    return of_cond, None if uncond is None else of_uncond, of_x if want_x else None, *[None] * 6


_step.register_autograd(_differentiate, setup_context=_setup)


def sampler_step(
    cond: Tensor,
    x: Tensor,
    coefficients: Tensor,
    *,
    uncond: Tensor | None = None,
    scale: float | Tensor = 1.0,
    noise: Tensor | None = None,
    next_x: Tensor | None = None,
    reference: Tensor | None = None,
    reparam: bool = False,
    reduce: str = "mean",
) -> StepOut:
    """Take, or evaluate, a step ``x' = a x + b v + s noise`` with guidance ``v = u + w (c - u)``.

    One pass over the latents instead of fifteen; the arithmetic is float32 (float64 kept). Gradients flow to cond,
    uncond and x through log_prob and kl, and through next_x where `reparam` is set (then log_prob has none, because the
    noise is fixed). Not twice differentiable.

    Args:
        cond: `(B, ...)` prediction of the network, in the state's parametrisation.
        x: `(B, ...)` state before the step, in storage type.
        coefficients: `(B, 3)` a, b and the standard deviation s of each sample; `affine` gives a and b.
        uncond: `(B, ...)` prediction without the prompt; None: no guidance.
        scale: guidance scale w, a number or `(B,)`.
        noise: `(B, ...)` standard normal, to take a step.
        next_x: `(B, ...)` a recorded outcome, to evaluate one; exactly one of the two is given.
        reference: `(B, ...)` guided prediction of the reference policy, for kl; detached.
        reparam: keep the graph from next_x to the prediction through the noise.
        reduce: `mean` over the elements of a sample, or `sum`.

    Raises:
        ValueError: shapes, types or devices do not fit, a tensor without a gradient here requires one, or reduce is
            neither.
    """
    given = noise if next_x is None else next_x
    if given is None or (noise is not None and next_x is not None):
        raise ValueError("give noise to take a step, or next_x to evaluate one; exactly one of them")
    _check(cond, x, given, uncond, reference, coefficients)
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce = {reduce!r} is unknown; valid: mean, sum")
    if reparam and next_x is not None:
        raise ValueError("reparam is about drawing next_x; it is given here")
    rows = _rows(coefficients, scale, x)
    fixed = None if reference is None else reference.detach()
    drawn, log_prob, kl = _step(cond, uncond, x, given, fixed, rows, next_x is None, reduce == "sum", reparam)
    if next_x is not None:
        return StepOut(next_x, log_prob, kl)
    return StepOut(drawn if reparam else drawn.detach(), log_prob, kl)


def _rows(coefficients: Tensor, scale: float | Tensor, x: Tensor) -> Tensor:
    """a, b, s and w per sample, `(B, 4)`, on the device of x in the type of the arithmetic, rounded once."""
    w = torch.as_tensor(scale, dtype=torch.float64).to(coefficients.device).detach()
    if w.shape not in ((), x.shape[:1]):
        raise ValueError(f"scale must be a number or have shape ({x.shape[0]},), got {tuple(w.shape)}")
    rows = torch.cat([coefficients.detach().double(), w.expand(x.shape[0])[:, None]], dim=1)
    return rows.to(device=x.device, dtype=plain.wide(x.dtype), non_blocking=True)


def _check(
    cond: Tensor, x: Tensor, given: Tensor, uncond: Tensor | None, reference: Tensor | None, coefficients: Tensor
) -> None:
    latents = {"cond": cond, "x": x, "noise or next_x": given, "uncond": uncond, "reference": reference}
    shapes = {name: tuple(tensor.shape) for name, tensor in latents.items() if tensor is not None}
    if len(set(shapes.values())) > 1 or x.dim() < 2 or (len(x) and not x.numel()):
        raise ValueError(f"latents must share one shape (B, ...) with at least one element a sample, got {shapes}")
    dtypes = {name: tensor.dtype for name, tensor in latents.items() if tensor is not None}
    if not all(dtype.is_floating_point for dtype in dtypes.values()):
        raise ValueError(f"latents must be floating point, got {dtypes}")
    if coefficients.shape != (len(x), 3):
        raise ValueError(f"coefficients must have shape ({len(x)}, 3), got {tuple(coefficients.shape)}")
    check_one_device(**latents)
    if torch.is_grad_enabled() and given.requires_grad:
        raise ValueError("no gradient flows to noise or next_x here: detach it, or use the sampler's own step")
