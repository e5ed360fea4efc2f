"""Noise of compared samples, and averages over several draws.

Compared samples share one t. Two choices of noise, of one shape ``(like, generator) -> noise``:
:func:`shared_noise` (Diffusion-DPO, Flow-DPO: a paired comparison) and :func:`own_noise` (RankDPO, DSO, RPO, MagicID).

Two choices of averaging, ``(loss, *deltas) -> like one draw``, with draws on the first axis, ``(N, ...)``:
:func:`average_inside` averages the log-ratios, :func:`average_outside` the losses. Inside estimates the log-ratio more
exactly; with a convex link it is never larger than outside (Jensen), and both agree for a linear one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def own_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return standard normal noise of the shape, type and device of ``like (B, G, ...)``, one draw for each sample.

    Drawn on the generator's device, on the CPU without one.
    """
    device = "cpu" if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device).to(like)


def shared_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return noise as :func:`own_noise` does, but one draw for all samples of a group: equal along axis 1.

    Raises:
        ValueError: ``like`` has fewer than two axes.
    """
    if like.ndim < 2:
        raise ValueError(f"a group needs shape (B, G, ...), got {tuple(like.shape)}; a pair is a group of two")
    return own_noise(like[:, :1], generator).expand(like.shape).clone()


def winner_loser(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split a stacked pair batch ``(2 B, ...)``, winners first, into winners and losers ``(B, ...)``.

    Raises:
        ValueError: the first axis is not even.
    """
    if x.ndim == 0 or x.shape[0] % 2:
        raise ValueError(f"a pair batch has an even first axis, winners first, got shape {tuple(x.shape)}")
    winner, loser = x.chunk(2)
    return winner, loser


def _same_draws(deltas: tuple[Tensor, ...]) -> None:
    shapes = [tuple(d.shape) for d in deltas]
    if not deltas or any(len(s) < 1 or s[0] != shapes[0][0] for s in shapes) or not shapes[0][0]:
        raise ValueError(f"surrogates need the same number of draws on their first axis, got shapes {shapes}")


def average_inside(loss: Callable[..., Tensor], *deltas: Tensor) -> Tensor:
    """Return ``loss`` of the mean surrogates: ``average_inside(loss, delta_w, delta_l)``, each ``(N, B)`` for N draws.

    Raises:
        ValueError: the numbers of draws differ, or there is none.
    """
    _same_draws(deltas)
    return loss(*(d.mean(0) for d in deltas))


def average_outside(loss: Callable[..., Tensor], *deltas: Tensor) -> Tensor:
    """Return the mean over draws of ``loss``; arguments and errors as in :func:`average_inside`."""
    _same_draws(deltas)
    return torch.stack([loss(*draw) for draw in zip(*deltas, strict=True)]).mean(0)
