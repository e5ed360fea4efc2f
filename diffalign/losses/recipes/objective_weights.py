"""Weights of objectives from their gradients; see :mod:`diffalign.losses.objective_weights`. All return ``(K,)``."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.front_volume import hypervolume
from diffalign.losses.objective_weights import aligned, hypergradient, hypervolume_scale, mirror
from diffalign.losses.recipes.registry import recipe


@recipe("drw", lr=1e-6, mu=1e-5)
def drw(gram: Tensor, weights: Tensor, *, lr: float, mu: float) -> Tensor:
    """DRW (arXiv:2509.11452; its code), gradient form: ``w <- softmax(log w + lr I / mu)``, ``I_k = <g_k, sum_j g_j>``.

    ``gram`` ``(K, K)`` of the gradients of chosen layers (LoRA parameters will do), ``weights`` ``(K,)``, 1 / K at the
    start. Its other form scales the reward: :func:`drw_scale`.
    """
    return mirror(gram, weights, lr=lr, mu=mu)


def drw_scale(front: Tensor, point: Tensor, reference: Tensor) -> Tensor:
    """DRW's hypervolume form (its code): the reward's factor ``1/2 + 3/2 tanh(HV(front + point) - HV(front))``, ``()``.

    Args:
        front: ``(N, K)`` validation scores so far, K <= 3; the point joins them only if its factor exceeds 1/2.
        point: ``(K,)``, this validation's scores.
        reference: ``(K,)``, the worst point that counts; in the code the first validation.
    """
    front, point, reference = front.double(), point.double(), reference.double()
    gain = hypervolume(torch.cat([front, point[None]]), reference) - hypervolume(front, reference)
    return hypervolume_scale(gain.clamp(min=0))


@recipe("barfi")
def barfi(gram: Tensor, weights: Tensor, *, primary: int = 0, lr: float) -> Tensor:
    """BARFI (arXiv:2310.19007), first order [derived]: ``w_k + lr <g_primary, g_k>``.

    The bilevel problem has the inverse Hessian of the inner objective between the two gradients; here it is the
    identity. An auxiliary reward whose gradient opposes the primary one's loses weight. ``lr`` is yours.
    """
    return hypergradient(gram[primary], weights, lr=lr)


@recipe("dreamprm", lr=1e-2)
def dreamprm(products: Tensor, weights: Tensor, *, lr: float) -> Tensor:
    """DreamPRM (arXiv:2505.20241; its code): weights of K training domains from the gradient on a held-out meta set.

    ``products`` ``(K,)`` of the meta gradient with each domain's; rate 1e-2. This is one unrolled step; the code
    unrolls 5 (rate 5e-7) through the reward model, whose training is not part of this.
    """
    return hypergradient(products, weights, lr=lr)


@recipe("pareto-da")
def pareto_da(gram: Tensor, target: Tensor) -> Tensor:
    """ParetoDA [rebuilt from the abstract]: the mixture of gradients that serves a held-out objective best and worsens
    none; the min-norm mixture if none serves it. ``target`` ``(K,)``: inner products with the held-out gradient.
    """
    return aligned(gram, target)
