"""Log-ratios of a policy against its references: inputs of preference, regression and implicit-reward losses.

Three functions of one shape, ``(logp, refs=(), *, coef, mask, weight, discount)``, for
``r_t = m_t w_t discount**t (logp_t - sum_j c_j ref_jt)``:

- :func:`token_log_ratio`: ``r_t``, like ``logp``;
- :func:`log_ratio`: ``sum_t r_t``, ``(B,)``, the convention of DPO and nearly all others;
- :func:`mean_log_ratio`: ``sum_t r_t / sum_t m_t``, ``(B,)`` (SimPO, AlphaPO, PRO, TRPA; TRL's IPO). Not divided by
  the weights.

A denoising step takes the place of a token. One value per item, ``logp (B,)`` (a surrogate at one sampled timestep, or
a summed log-prob), is not reduced: all three then agree. ``refs=()`` is the reference-free form. Typical beta: 0.01 to
0.5 on a sum, thousands on a mean over latent elements: ``beta_sum = beta_mean / (C H W)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import ParamSpec, cast

import torch
from torch import Tensor

from diffalign.losses.common import check_any_valid, check_floating, check_same_shape, keep, row_mean

P = ParamSpec("P")
Refs = Tensor | Sequence[Tensor]


def _shares(n: int, coef: Sequence[float] | None) -> list[float]:
    """Coefficients of ``n`` references, made to sum to 1; equal by default."""
    coef = [1.0] * n if coef is None else list(coef)
    if len(coef) != n:
        raise ValueError(f"{len(coef)} coefficients for {n} references: give one for each")
    if n and not sum(coef) > 0:
        raise ValueError(f"coefficients of the references must have a positive sum, got {coef}")
    return [c / sum(coef) for c in coef]


def _against(logp: Tensor, refs: Refs, coef: Sequence[float] | None, mask: Tensor | None) -> Tensor:
    """``logp - sum_j c_j ref_j``; masked entries become 0 before the subtraction, so that none is ``inf - inf``."""
    refs = (refs,) if isinstance(refs, Tensor) else tuple(refs)
    check_floating(logp=logp, **{f"refs[{j}]": ref for j, ref in enumerate(refs)})
    check_same_shape(logp=logp, **{f"refs[{j}]": ref for j, ref in enumerate(refs)})
    out = keep(logp, mask)
    for share, ref in zip(_shares(len(refs), coef), refs, strict=True):
        out = out - share * keep(ref.detach(), mask)
    return out


def _discounted(x: Tensor, discount: float) -> Tensor:
    """``x`` ``(B, T)`` times ``discount**t``, the first step undiscounted."""
    if not 0 < discount <= 1:
        raise ValueError(f"discount must be in (0, 1], got {discount}")
    if discount == 1:
        return x
    if x.ndim != 2:
        raise ValueError("a discount needs one value per step, logp of shape (B, T), got one value per item")
    return x * discount ** torch.arange(x.shape[1], dtype=x.dtype, device=x.device)


def token_log_ratio(
    logp: Tensor,
    refs: Refs = (),
    *,
    coef: Sequence[float] | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    discount: float = 1.0,
) -> Tensor:
    """Return the log-ratio of each token or step, like ``logp``, fp32 (fp64 kept); masked entries are 0.

    Args:
        logp: ``(B, T)`` log-probs of the policy in nats, or ``(B,)``; the only input with a gradient.
        refs: reference log-probs of the same shape, one tensor or several; ``()`` for none.
        coef: one coefficient for each reference, renormalised to sum 1 (INPO ``(tau / eta, 1 - tau / eta)``; MNPO's
            code does not renormalise). Default: equal.
        mask: shape of ``logp``, 1 where valid.
        weight: shape of ``logp``, detached (TGDPO, T-REG, span masks).
        discount: in (0, 1]; step t counts ``discount**t``, t from 0 (CPL).

    Raises:
        ValueError: log-probs are integers, shapes differ, the coefficients do not match the references or do not sum
            to more than 0, the mask has no valid entry, or the discount is out of range.
    """
    if logp.ndim not in (1, 2):
        raise ValueError(f"log-probs must have shape (B,) or (B, T), got {tuple(logp.shape)}")
    check_any_valid(mask)
    out = _discounted(_against(logp, refs, coef, mask), discount)
    if weight is not None:
        check_same_shape(logp=logp, weight=weight)
        out = out * keep(weight.detach(), mask)
    return out


def _over_rows(
    tokens: Callable[P, Tensor],
) -> Callable[[Callable[[Tensor, Tensor | None], Tensor]], Callable[P, Tensor]]:
    """Turn a reduction ``(values (B, T), mask) -> (B,)`` into a function with the arguments of ``tokens``."""

    def decorate(reduce: Callable[[Tensor, Tensor | None], Tensor]) -> Callable[P, Tensor]:
        def reduced(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            out = tokens(*args, **kwargs)
            return out if out.ndim == 1 else reduce(out, cast("Tensor | None", kwargs.get("mask")))

        update_wrapper(reduced, reduce, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        reduced.__wrapped__ = tokens  # type: ignore[attr-defined]  # whose signature it has
        return reduced

    return decorate


@_over_rows(token_log_ratio)
def log_ratio(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the summed log-ratio of each item, ``(B,)``; a row without a valid entry is 0.

    Arguments as in :func:`token_log_ratio`. ``beta`` times this is the implicit reward of DPO, and of CDR (strong
    against weak model), SR-PPO (fine-tuned against base) and RTO.
    """
    return values.sum(1)


@_over_rows(token_log_ratio)
def mean_log_ratio(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the summed log-ratio over the number of valid entries, ``(B,)``; a row without a valid entry is 0.

    Arguments as in :func:`token_log_ratio`. A constant per prompt does not cancel between answers of different length.
    """
    return row_mean(values, mask)
