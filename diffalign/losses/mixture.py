"""Mixture of Bradley-Terry heads for heterogeneous preferences, and the weights of the heads for one user.

``delta (B, K)`` is winner minus loser under each of K heads, or in each of K contexts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffalign.losses.common import as_float, check_floating, check_not_negative, check_positive


def _joint(delta: Tensor, prior_logits: Tensor) -> Tensor:
    """``log pi_k + log sigmoid(delta_k)``, ``(B, K)``."""
    check_floating(delta=delta, prior_logits=prior_logits)
    if delta.ndim != 2 or prior_logits.shape not in (delta.shape, delta.shape[1:]):
        raise ValueError(
            f"delta must be (B, K) with a prior of shape (B, K) or (K,), got {tuple(delta.shape)} and "
            f"{tuple(prior_logits.shape)}"
        )
    return as_float(prior_logits).log_softmax(-1) + logsigmoid(as_float(delta))


def mixture_preference(delta: Tensor, prior_logits: Tensor) -> Tensor:
    """Return ``-log sum_k pi_k sigmoid(delta_k)``, ``(B,)``: the negative log-likelihood of the mixture.

    Args:
        delta: ``(B, K)``.
        prior_logits: ``(B, K)`` of a router, or ``(K,)``; ``pi`` is their softmax, so log-probabilities are valid too.
            Both inputs have a gradient: the loss trains the router.

    Raises:
        ValueError: a shape or type does not fit.
    """
    return -_joint(delta, prior_logits).logsumexp(1)


def responsibilities(delta: Tensor, prior_logits: Tensor) -> Tensor:
    """Return the posterior of the heads for each choice, ``(B, K)``, rows sum to 1, detached (the E-step)."""
    return _joint(delta, prior_logits).softmax(1).detach()


def hedge(weights: Tensor, delta: Tensor, *, rate: float = 1.0) -> Tensor:
    """Return head weights after a user's choices, ``w_k ~ w_k prod_b sigmoid(delta_bk)**rate`` (Hedge), ``(K,)``.

    From equal weights and with ``rate = 1 / T`` these are DRM's few-shot weights at temperature T.

    Args:
        weights: ``(K,)``, not negative, not all 0; need not sum to 1.
        delta: ``(B, K)`` winner minus loser; detached.
        rate: learning rate, > 0.

    Raises:
        ValueError: a shape does not fit, ``rate`` is not positive, or the weights are negative or all 0.
    """
    check_not_negative(weights=weights)
    check_positive(rate=rate, largest_weight=weights.max())
    log_likelihood = _joint(delta.detach(), torch.zeros_like(weights, dtype=as_float(delta).dtype))
    return (as_float(weights.detach()).log() + rate * log_likelihood.sum(0)).softmax(0)
