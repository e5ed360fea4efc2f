"""Win matrices of a group, ``P (B, G, G)``, the probability that sample i beats sample j, and scores computed from
them.

``P + P'`` is 1 and the diagonal 1/2. Matrices are computed from rewards ``(B, G)`` (:func:`bradley_terry`,
:func:`indicator`), from K voters or factors ``(K, B, G)`` (:func:`majority`, :func:`lexicographic`), or from a pairwise
judge in both orders (:func:`both_orders`). Judgements may be intransitive.

All detached: scores are rewards. A sample that could not be scored has NaN in its row and column; scores leave such
comparisons out, and a sample without a comparison gets NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, check_probability


def _gaps(values: Tensor, ndim: int) -> Tensor:
    """Differences ``values_i - values_j``; NaN where one is not finite."""
    if values.ndim != ndim or values.numel() == 0:
        shape = "(B, G)" if ndim == 2 else "(K, B, G)"
        raise ValueError(f"expected values of shape {shape} with at least one sample, got {tuple(values.shape)}")
    values = as_float(values.detach())
    values = values.masked_fill(~values.isfinite(), torch.nan)
    return values[..., :, None] - values[..., None, :]


def _step(gap: Tensor) -> Tensor:
    """1 above 0, 1/2 at 0, 0 below; NaN kept."""
    return torch.where(gap.isnan(), gap, (gap.sign() + 1) / 2)


def square(matrix: Tensor) -> Tensor:
    """Return a matrix ``(B, G, G)`` detached and in fp32 (fp64 kept).

    Raises:
        ValueError: it has another shape.
    """
    if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2] or matrix.numel() == 0:
        raise ValueError(f"a matrix of a group must have shape (B, G, G), got {tuple(matrix.shape)}")
    return as_float(matrix.detach())


def bradley_terry(rewards: Tensor) -> Tensor:
    """Return ``sigmoid(r_i - r_j)`` from rewards ``(B, G)``."""
    return _gaps(rewards, 2).sigmoid()


def indicator(rewards: Tensor) -> Tensor:
    """Return ``1[r_i > r_j]``, 1/2 on ties, from rewards ``(B, G)``: uses their order only."""
    return _step(_gaps(rewards, 2))


def majority(votes: Tensor) -> Tensor:
    """Return the share of voters that prefer i, from votes ``(K, B, G)``; a voter that is NaN abstains."""
    return _step(_gaps(votes, 3)).nanmean(0)


def lexicographic(factors: Tensor, *, margins: Sequence[float]) -> Tensor:
    """Return 1 or 0 by the first factor whose gap exceeds its margin, 1/2 without one (HERON, arXiv:2309.02632).

    Args:
        factors: ``(K, B, G)``, the most important first; a NaN factor does not decide.
        margins: K numbers >= 0, in the unit of each factor. The paper's are c_k times the factor's deviation; its
            released code uses the second margin for all later factors, this does not.

    Raises:
        ValueError: the number of margins is not K, or one is negative.
    """
    gaps = _gaps(factors, 3)
    if len(margins) != len(gaps):
        raise ValueError(f"{len(gaps)} factors need {len(gaps)} margins, got {len(margins)}")
    check_not_negative(margins=torch.tensor(margins))
    wins = torch.full_like(gaps[0], 0.5)
    for gap, margin in zip(reversed(gaps), reversed(margins), strict=True):
        wins = torch.where(gap.abs() > margin, _step(gap), wins)
    return wins


def both_orders(verdicts: Tensor) -> Tensor:
    """Return ``(V_ij + 1 - V_ji) / 2``, without the judge's position bias; a failed verdict counts 1/2.

    Args:
        verdicts: ``(B, G, G)``, probability of i when i is shown first and j second; NaN where the answer could not be
            parsed. The diagonal is ignored.

    Raises:
        ValueError: a verdict is outside [0, 1], or the shape is another.
    """
    verdicts = square(verdicts).nan_to_num(nan=0.5)
    check_probability(verdicts=verdicts)
    return (verdicts + 1 - verdicts.mT) / 2


def _others(matrix: Tensor) -> Tensor:
    """The matrix with a NaN diagonal."""
    return square(matrix).masked_fill(torch.eye(len(matrix[0]), dtype=torch.bool, device=matrix.device), torch.nan)


def mean_wins(matrix: Tensor) -> Tensor:
    """Return the win rate against the others, ``(B, G)`` (SPO, arXiv:2401.04056). Its mean over a group is 1/2.

    With :func:`indicator` it is the rank over G - 1; in a cycle all have 1/2 and no advantage.
    """
    return _others(matrix).nanmean(2)


def anchor_wins(matrix: Tensor, anchor: Tensor) -> Tensor:
    """Return the win rate against one sample of the group, ``(B, G)``; the anchor itself has 1/2.

    Args:
        matrix: ``(B, G, G)``.
        anchor: ``(B,)``, the index of each group's anchor.

    Raises:
        ValueError: an index is outside the group, or a shape does not fit.
    """
    matrix = square(matrix)
    if anchor.shape != matrix.shape[:1] or anchor.is_floating_point():
        raise ValueError(f"anchor must hold {len(matrix)} integers, got {anchor.dtype} of shape {tuple(anchor.shape)}")
    if not ((anchor >= 0) & (anchor < matrix.shape[2])).all():
        raise ValueError(f"anchor must be in 0..{matrix.shape[2] - 1}, got {anchor.tolist()}")
    return matrix[torch.arange(len(matrix), device=matrix.device), :, anchor]


def copeland(matrix: Tensor) -> Tensor:
    """Return the number of others beaten, a tie counting 1/2, ``(B, G)`` (arXiv:2405.14758). A Condorcet winner has
    G - 1.
    """
    beaten = _step(_others(matrix) - 0.5)
    return beaten.nansum(2).masked_fill(beaten.isnan().all(2), torch.nan)


def closure_wins(matrix: Tensor, *, tie: float = 1e-5) -> Tensor:
    """Return rank quantiles in [0, 1] under the transitive closure of the verdicts, ``(B, G)`` (LLaMA-Berry,
    arXiv:2410.02884).

    Of the relation ``P >= 1/2``; samples are ordered by the number of samples reached, ties by mean win rate. The
    quantile is ``1 - (rank - 1) / (G - 1)``, of the mean rank for remaining ties [ours].

    Args:
        matrix: ``(B, G, G)``.
        tie: largest difference of tied mean win rates.
    """
    others = _others(matrix)
    reach = others >= 0.5
    for k in range(len(reach[0])):
        reach = reach | (reach[:, :, k, None] & reach[:, None, k, :])
    reach = reach & ~torch.eye(len(reach[0]), dtype=torch.bool, device=reach.device)
    soft = others.nanmean(2)
    borda = reach.sum(2).to(soft.dtype)
    met = ~soft.isnan()
    order = lexicographic(torch.stack([borda, soft]), margins=(0.0, tie))
    return mean_wins(order.masked_fill(~(met[:, :, None] & met[:, None, :]), torch.nan))


def difference_advantage(differences: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return ``mean_j D_ij / sqrt(sum D**2 / (2 G (G - 1)) + eps)``, ``(B, G)`` (Think-RM, arXiv:2505.16265, its code).

    With ``D_ij = r_i - r_j`` this is GRPO's advantage with the unbiased deviation; eps is inside the root, as there.
    Sums to 0 over a group; a group of one gets NaN [ours]. The code also divides a binary verdict by the length of its
    text; this function does not.

    Args:
        differences: ``(B, G, G)``, preference of i over j, ``D' = -D``; a failed verdict (NaN) counts 0.
        eps: see above.

    Raises:
        ValueError: the matrix is not antisymmetric.
    """
    check_not_negative(eps=eps)
    differences = square(differences).nan_to_num(nan=0.0)
    if not torch.allclose(differences, -differences.mT, rtol=1e-4, atol=1e-6):
        raise ValueError("differences must be antisymmetric, D_ij = -D_ji: average both orders, (D - D.mT) / 2, first")
    g = len(differences[0])
    variance = differences.square().sum((1, 2), keepdim=True) / (2 * g * (g - 1))
    return (differences.mean(2, keepdim=True) / (variance + eps).sqrt())[..., 0]
