"""Cross-attention in plain torch with its gradient written out: the specification of the kernels.

``p = softmax(scale q k^T)`` over the first `lens` keys of a sample, ``out = p v``, lse is the log-sum-exp of scores.
With g the gradient of out, ``delta = sum(g out) - g_lse`` per query and ``ds = p (g v^T - delta)``::

    dq = scale ds k        dk = scale ds^T q        dv = p^T g

A sample without keys has output 0, lse -inf and no gradient. What stands behind the last key of a sample, NaN too,
reaches nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of the arithmetic: float32, float64 kept."""
    return torch.promote_types(dtype, torch.float32)


def visible(lens: Tensor | None, keys: Tensor) -> Tensor | None:
    """`(B, 1, Lk, 1)` bool: the keys of each sample; None: all."""
    if lens is None:
        return None
    return (torch.arange(keys.shape[2], device=keys.device) < lens[:, None])[:, None, :, None]


def _clean(tensor: Tensor, seen: Tensor | None) -> Tensor:
    """Keys or values `(B, H, Lk, D)` in the type of the arithmetic, 0 behind the last one."""
    tensor = tensor.to(wide(tensor.dtype))
    return tensor if seen is None else torch.where(seen, tensor, 0.0)


def _scores(q: Tensor, k: Tensor, seen: Tensor | None, scale: float) -> Tensor:
    """`(B, H, Lq, Lk)`, -inf behind the last key; k is clean."""
    scores = scale * (q.to(k.dtype) @ k.mT)
    return scores if seen is None else scores.masked_fill(~seen.mT, -torch.inf)


def _probabilities(scores: Tensor, lse: Tensor) -> Tensor:
    """`exp(scores - lse)`, 0 where a query sees no key."""
    return (scores - lse.nan_to_num(neginf=0.0)[..., None]).exp()


def forward(q: Tensor, k: Tensor, v: Tensor, lens: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Output `(B, H, Lq, D)` in the type of q, and lse `(B, H, Lq)`.

    Args:
        q: `(B, H, Lq, D)`.
        k: `(B, H, Lk, D)`.
        v: `(B, H, Lk, D)`.
        lens: `(B,)` keys of each sample, 0 to Lk; None: all.
        scale: of the scores.
    """
    seen = visible(lens, k)
    scores = _scores(q, _clean(k, seen), seen, scale)
    lse = scores.logsumexp(-1)
    out = _probabilities(scores, lse) @ _clean(v, seen)
    return out.to(q.dtype).contiguous(), lse


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
    """Gradients of q, k and v in their types, each empty if not wanted.

    Args:
        grad: `(B, H, Lq, D)` of the output.
        delta: `(B, H, Lq)`, see above.
        lse: As `forward` returned it.
        q: As in `forward`; so are the others.
        k: Likewise.
        v: Likewise.
        lens: Likewise.
        scale: Likewise.
        want_q: Whether the gradient of q is needed.
        want_kv: Whether those of k and v are.
    """
    seen = visible(lens, k)
    keys, values = _clean(k, seen), _clean(v, seen)
    wide_q, wide_grad = q.to(keys.dtype), grad.to(keys.dtype)
    p = _probabilities(_scores(q, keys, seen, scale), lse)
    ds = scale * p * (wide_grad @ values.mT - delta[..., None])
    of_q = (ds @ keys).to(q.dtype) if want_q else q.new_empty(0)
    of_k = (ds.mT @ wide_q).to(k.dtype) if want_kv else k.new_empty(0)
    of_v = (p.mT @ wide_grad).to(v.dtype) if want_kv else v.new_empty(0)
    return of_q.contiguous(), of_k.contiguous(), of_v.contiguous()
