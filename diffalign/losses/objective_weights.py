"""Weights of K objectives from the inner products of their gradients.

``gram (K, K)``: ``gram[j, k] = <g_j, g_k>`` of the gradients, all of losses or all of returns; those of the LoRA
parameters or of a few layers suffice. All detached and computed in fp64; weights have the dtype of ``gram`` (fp32 at
least).
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, check_positive


def _square(gram: Tensor) -> Tensor:
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.numel() == 0:
        raise ValueError(f"gram must have shape (K, K), got {tuple(gram.shape)}")
    gram = gram.detach().double()
    if not gram.isfinite().all() or not torch.allclose(gram, gram.T, rtol=1e-4, atol=1e-9):
        raise ValueError("gram must be finite and symmetric: the inner products of K gradients")
    return gram


def _row(values: Tensor, k: int, name: str) -> Tensor:
    if values.shape != (k,) or not values.isfinite().all():
        raise ValueError(f"{name} must hold {k} finite numbers, got {values}")
    return values.detach().double()


def mirror(gram: Tensor, weights: Tensor, *, lr: float = 1e-6, mu: float = 1e-5) -> Tensor:
    """Return ``softmax(log w + lr I / mu)`` with ``I_k = sum_j gram[k, j]`` (DRW, arXiv:2509.11452, its code).

    Objectives with a gradient along the sum of all gradients gain weight; equal influences change nothing.

    Args:
        gram: ``(K, K)`` inner products of the gradients.
        weights: ``(K,)``, positive; 1 / K at the start.
        lr: rate, in the unit of ``mu`` over that of ``gram``.
        mu: strength of the proximity to the old weights.

    Raises:
        ValueError: a weight, ``lr`` or ``mu`` is not positive, or a shape does not fit.
    """
    check_positive(lr=lr, mu=mu, weights=weights)
    products = _square(gram)
    w = _row(weights, len(products), "weights")
    return (w.log() + lr / mu * products.sum(1)).softmax(0).to(as_float(gram).dtype)


def hypergradient(products: Tensor, weights: Tensor, *, lr: float) -> Tensor:
    """Return ``w_k + lr <g_outer, g_k>``: one step on the outer objective through one step on the inner (first order).

    An objective whose gradient opposes the outer one loses weight, an orthogonal one keeps it. BARFI has the inverse
    Hessian between the two gradients; this is its first-order form [derived].

    Args:
        products: ``(K,)``, ``gram[primary]`` if the outer objective is one of the K.
        weights: ``(K,)``, any numbers.
        lr: rate.

    Raises:
        ValueError: ``lr`` is not positive, or the shapes differ.
    """
    check_positive(lr=lr)
    w = _row(weights, len(weights), "weights")
    return (w + lr * _row(products, len(w), "products")).to(as_float(products).dtype)


def min_norm(gram: Tensor) -> Tensor:
    """Return the weights on the simplex that minimise ``w' gram w``, ``(K,)`` (MGDA); exact, over all faces, K <= 10.

    The direction ``d = sum_k w_k g_k`` has ``<d, g_k> >= |d|**2`` for all k: a step along it worsens no objective.

    Raises:
        ValueError: ``gram`` is not a symmetric ``(K, K)`` with K <= 10.
    """
    products = _square(gram)
    k = len(products)
    if k > 10:
        raise ValueError(f"the exact solution looks at 2**K faces: K must be at most 10, got {k}")
    faces = [face for size in range(k, 0, -1) for face in combinations(range(k), size)]
    points = [w for face in faces if (w := _least_on(products, face)) is not None]
    return min(points, key=lambda w: float(w @ products @ w)).to(as_float(gram).dtype)


def _least_on(products: Tensor, face: tuple[int, ...]) -> Tensor | None:
    """Weights of the point of least norm in the affine hull of some gradients; None if one is negative."""
    part, ones = products[list(face)][:, list(face)], products.new_ones(len(face), 1)
    system = torch.cat([torch.cat([part, ones], 1), torch.cat([ones.T, ones.new_zeros(1, 1)], 1)])
    solution, info = torch.linalg.solve_ex(system, torch.cat([torch.zeros_like(ones), ones[:1]]))
    mix = solution[:-1, 0]
    if info != 0 or not (mix >= 0).all():
        return None
    return products.new_zeros(len(products)).index_copy(0, torch.tensor(face, device=mix.device), mix)


def aligned(gram: Tensor, target: Tensor) -> Tensor:
    """Return the weights on the simplex whose direction agrees most with the gradient on validation data and worsens no
    objective.

    The linear program ``max w' target`` under ``gram w >= 0``, solved over its vertices, K <= 8. If no such direction
    improves the validation objective, :func:`min_norm` (ParetoDA, from its abstract [derived]).

    Args:
        gram: ``(K, K)`` inner products of the gradients.
        target: ``(K,)``, inner products of each gradient with the one on validation data.

    Raises:
        ValueError: ``gram`` is not a symmetric ``(K, K)`` with K <= 8, or ``target`` not ``(K,)``.
    """
    products = _square(gram)
    k = len(products)
    if k > 8:
        raise ValueError(f"the exact solution looks at all corners: K must be at most 8, got {k}")
    gain = _row(target, k, "target")
    rows = torch.cat([torch.eye(k).to(products), products / products.abs().amax(1, keepdim=True).clamp(min=1e-300)])
    active = rows[torch.tensor(list(combinations(range(2 * k), k - 1)), dtype=torch.long)]
    system = torch.cat([rows.new_ones(len(active), 1, k), active], 1)
    corners, info = torch.linalg.solve_ex(system, torch.eye(k).to(rows)[0].expand(len(active), k))
    allowed = (info == 0) & (corners @ rows.T >= -1e-9).all(1)
    value = torch.where(allowed, corners @ gain, -torch.inf)
    if not value.max() > 0:
        return min_norm(gram)
    return corners[value.argmax()].clamp(min=0).to(as_float(gram).dtype)


def hypervolume_scale(gain: float | Tensor) -> Tensor:
    """Return ``1/2 + 3/2 tanh(gain)``, in [1/2, 2) (DRW's other form, its code): the reward factor of a model whose
    validation scores enlarge the front by the hypervolume ``gain``; 1/2 for a dominated one.

    Raises:
        ValueError: ``gain`` is negative.
    """
    check_not_negative(gain=gain)
    return 0.5 + 1.5 * as_float(torch.as_tensor(gain)).tanh()
