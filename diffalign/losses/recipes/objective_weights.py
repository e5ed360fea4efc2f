"""Weights of objectives from their gradients; see :mod:`diffalign.losses.objective_weights`. All return ``(K,)``."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_positive
from diffalign.losses.objective_weights import aligned, hypergradient, hypervolume_scale, mirror
from diffalign.losses.recipes.registry import recipe


def _above(front: Tensor, ref: Tensor) -> Tensor:
    """Points ``(N, K)`` as gaps above the reference; a coordinate below it is 0, and so is the point's volume."""
    if front.ndim != 2 or 0 in front.shape or ref.shape != front.shape[1:]:
        raise ValueError(f"need front (N, K) and ref (K,), got {tuple(front.shape)} and {tuple(ref.shape)}")
    gaps = (as_float(front.detach()) - as_float(ref.detach())).clamp(min=0)
    if not gaps.isfinite().all():
        raise ValueError("the front and the reference must be finite; leave out points that were not scored")
    return gaps


def _sweep(gaps: Tensor) -> Tensor:
    """Volume of the union of boxes from 0 to each point, by slabs along the last axis."""
    if gaps.shape[1] == 1:
        return gaps.amax()
    gaps = gaps[gaps[:, -1].argsort(descending=True)]
    depth = gaps[:, -1] - torch.cat([gaps[1:, -1], gaps.new_zeros(1)])
    return torch.stack([d * _sweep(gaps[: i + 1, :-1]) for i, d in enumerate(depth)]).sum()


def hypervolume(front: Tensor, ref: Tensor) -> Tensor:
    """Return the exact volume above ``ref`` that the points dominate, a 0-d tensor, for up to three objectives.

    Args:
        front: ``(N, K)``, K <= 3; dominated points change nothing.
        ref: ``(K,)``, the reference point.

    Raises:
        ValueError: K > 3 (see :func:`sampled_hypervolume`), a shape does not fit, or a value is not finite.
    """
    gaps = _above(front, ref)
    if gaps.shape[1] > 3:
        raise ValueError(f"exact for K <= 3, got K = {gaps.shape[1]}; use sampled_hypervolume")
    return _sweep(gaps)


def sampled_hypervolume(front: Tensor, ref: Tensor, *, generator: torch.Generator, samples: int = 10_000) -> Tensor:
    """Return a Monte Carlo estimate for any number of objectives, a 0-d tensor, unbiased.

    Uniform samples in the box between ``ref`` and the largest coordinates; with volume v of a box of volume V its
    standard deviation is ``sqrt(v (V - v) / samples)``. Memory is samples x N x K.

    Raises:
        ValueError: a shape does not fit, a value is not finite, or ``samples`` is not positive.
    """
    check_positive(samples=samples)
    gaps = _above(front, ref)
    box = gaps.amax(0)
    draws = box * torch.rand(samples, len(box), dtype=gaps.dtype, device=gaps.device, generator=generator)
    inside = (draws[:, None] < gaps[None]).all(2).any(1)
    return box.prod() * inside.to(gaps.dtype).mean()


@recipe("drw", "weights", lr=1e-6, mu=1e-5)
def drw(gram: Tensor, weights: Tensor, *, lr: float, mu: float) -> Tensor:
    """DRW (arXiv:2509.11452; its code), gradient form: mirror ascent on the weights of objectives.

    Formula: softmax(log w + lr I / mu), I_k = <g_k, sum_j g_j>

    ``gram`` ``(K, K)`` of the gradients of some layers (LoRA parameters suffice), ``weights`` ``(K,)``, 1 / K at the
    start. The form that scales the reward is :func:`drw_scale`.
    """
    return mirror(gram, weights, lr=lr, mu=mu)


def drw_scale(front: Tensor, point: Tensor, reference: Tensor) -> Tensor:
    """DRW's hypervolume form (its code): the reward's factor ``1/2 + 3/2 tanh(HV(front + point) - HV(front))``, ``()``.

    Args:
        front: ``(N, K)`` earlier validation scores, K <= 3; add the point only if its factor exceeds 1/2.
        point: ``(K,)``, new validation scores.
        reference: ``(K,)``, the reference point; in the code the first validation.
    """
    front, point, reference = front.double(), point.double(), reference.double()
    gain = hypervolume(torch.cat([front, point[None]]), reference) - hypervolume(front, reference)
    return hypervolume_scale(gain.clamp(min=0))


@recipe("barfi", "weights")
def barfi(gram: Tensor, weights: Tensor, *, primary: int = 0, lr: float) -> Tensor:
    """BARFI (arXiv:2310.19007), first order [derived]: weights move by the inner product of each gradient with the
    primary one.

    Formula: w_k + lr <g_primary, g_k>

    The bilevel problem has the inverse Hessian of the inner objective between the two gradients; here it is the
    identity. An auxiliary reward whose gradient opposes the primary one's loses weight. ``lr`` has no default.
    """
    return hypergradient(gram[primary], weights, lr=lr)


@recipe("dreamprm", "weights", lr=1e-2)
def dreamprm(products: Tensor, weights: Tensor, *, lr: float) -> Tensor:
    """DreamPRM (arXiv:2505.20241; its code): weights of K training domains from the gradient on a meta set.

    Formula: w_k + lr <g_meta, g_k>

    ``products`` ``(K,)`` of the meta gradient with each domain's; rate 1e-2. This is one unrolled step; the code
    unrolls 5 (rate 5e-7) through the reward model; its training is not included.
    """
    return hypergradient(products, weights, lr=lr)


@recipe("pareto-da", "weights")
def pareto_da(gram: Tensor, target: Tensor) -> Tensor:
    """ParetoDA [derived from the abstract]: the mixture of gradients that improves a validation objective most and
    worsens none; the min-norm mixture if none improves it. ``target`` ``(K,)``: inner products with the gradient on
    validation data.

    Formula: weights w on the simplex that maximise <sum_k w_k g_k, g_val> with <sum_k w_k g_k, g_j> >= 0
    """
    return aligned(gram, target)
