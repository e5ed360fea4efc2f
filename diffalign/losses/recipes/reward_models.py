"""Reward models on frozen features ``(B, D)``: user weights, anchors, heads. Winner first; one loss per pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from diffalign.losses import anchor
from diffalign.losses.common import as_float
from diffalign.losses.mixture import hedge
from diffalign.losses.preference import hinge, logistic, pair_margin, smooth_hinge
from diffalign.losses.recipes.registry import recipe


class Oppo(NamedTuple):
    """``encoder (B,)`` with the anchor detached and ``anchor (B,)`` with the features detached."""

    encoder: Tensor
    anchor: Tensor


@recipe("oppo", "reward_model", margin=1.0, preference_weight=0.1, norm_weight=0.1, norm=anchor.norm_gap)
def oppo(
    features_w: Tensor,
    features_l: Tensor,
    point: Tensor,
    *,
    margin: float,
    preference_weight: float,
    norm_weight: float,
    norm: Callable[[Tensor], Tensor],
) -> Oppo:
    """OPPO (arXiv:2305.16217): triplet loss around a learned point, alternating with the encoder.

    Formula: encoder: preference_weight triplet + norm_weight norm; point: triplet = relu(margin + |phi_w - z| - |phi_l
    - z|)

    The scripted form of the code; its human form has ``preference_weight=10`` and ``norm=anchor.norm_excess``. Ties:
    ``margin=0``. The norm term is the mean over winner and loser. The reward is ``anchor.distance(features,
    point[None])``.

    Args:
        features_w: ``(B, D)``.
        features_l: ``(B, D)``.
        point: ``(D,)``, the learned point.
        margin: margin of the triplet loss.
        preference_weight: weight of the triplet loss for the encoder.
        norm_weight: weight of the norm term.
        norm: ``(B, D) -> (B,)``.
    """

    def triplet(w: Tensor, l: Tensor, at: Tensor) -> Tensor:  # noqa: E741
        z = pair_margin(anchor.distance(w, at[None])[:, 0], anchor.distance(l, at[None])[:, 0])
        return hinge(z, target=margin)

    term = (norm(features_w) + norm(features_l)) / 2
    encoder = preference_weight * triplet(features_w, features_l, point.detach()) + norm_weight * term
    return Oppo(encoder, triplet(features_w.detach(), features_l.detach(), point))


@recipe("lore", "reward_model", temperature=100.0)
def lore(features_w: Tensor, features_l: Tensor, basis: Tensor, user_logits: Tensor, *, temperature: float) -> Tensor:
    """LoRe (arXiv:2504.14439), the form of the code: a user's mixture of low-rank heads, ``(B,)``.

    Formula: -log sigmoid((phi_w - phi_l) V softmax(w_user) / temperature)

    For a new user detach the basis and fit ``user_logits`` only.

    Args:
        features_w: ``(B, D)`` frozen embeddings.
        features_l: ``(B, D)``.
        basis: ``(K, D)`` reward heads.
        user_logits: ``(K,)`` or ``(B, K)``.
        temperature: divides the margin.
    """
    weights = as_float(user_logits).softmax(-1)
    score_w, score_l = (anchor.linear(x, basis, weights) for x in (features_w, features_l))
    return logistic(pair_margin(score_w, score_l, beta=1 / temperature))


@recipe("pal", "reward_model", log_scale=anchor.LOG_SCALE, width=5.0)
def pal(
    features_w: Tensor,
    features_l: Tensor,
    prototypes: Tensor,
    user_logits: Tensor,
    *,
    log_scale: float | Tensor,
    width: float,
) -> Tensor:
    """PAL-A (arXiv:2406.08469), the form of the code: cosine with the user's mixture of ideal points, smooth hinge of
    width 5, ``(B,)``. PAL-B passes prototypes that depend on the prompt, one call per prompt.

    Formula: smooth hinge of exp(log_scale) (cos(phi_w, p) - cos(phi_l, p)), p = sum_k softmax(w_user)_k p_k

    Args:
        features_w: ``(B, D)``, mapped to the space of the prototypes.
        features_l: ``(B, D)``.
        prototypes: ``(K, D)``, K = 2 in the paper.
        user_logits: ``(K,)`` or ``(B, K)``.
        log_scale: initially ``log(1 / 0.07)``, its exponential is at most 100.
        width: of the parabola before the hinge's target 1.
    """
    weights = as_float(user_logits).softmax(-1)
    w, l = (anchor.cosine(x, prototypes, weights, log_scale=log_scale) for x in (features_w, features_l))  # noqa: E741
    return smooth_hinge(pair_margin(w, l), width=width)


@recipe("domain-knowledge-rm", "reward_model")
def domain_knowledge_rm(scores_w: Tensor, scores_l: Tensor, weights: Tensor) -> Tensor:
    """A head over interpretable scores (arXiv:2402.15473) [derived]: Bradley-Terry on a weighted sum, ``(B,)``.

    Formula: -log sigmoid(sum_k w_k (s_w,k - s_l,k))

    A linear head; the paper has a small network on seven scores.

    Args:
        scores_w: ``(B, K)`` of reward plugins.
        scores_l: ``(B, K)``.
        weights: ``(K,)``, learned.
    """
    score_w, score_l = (anchor.linear(x, weights[None])[:, 0] for x in (scores_w, scores_l))
    return logistic(pair_margin(score_w, score_l))


class Drm(NamedTuple):
    """``heads (2 n, D)`` of unit length and their ``weights (2 n,)`` for one user; score by ``anchor.linear``."""

    heads: Tensor
    weights: Tensor


@recipe("drm-pca", "reward_model", n=20, temperature=1.0)
def drm_pca(difference: Tensor, shots: Tensor, *, n: int, temperature: float) -> Drm:
    """DRM (arXiv:2502.13131): heads from principal components, few-shot weights of a user.

    Formula: heads: top n components of phi_w - phi_l; weights: softmax(sum_shots log sigmoid(margin) / temperature)

    Weights are ``softmax(sum over shots of log sigmoid(margin) / T)``. The code standardises scores per subset: divide
    the shots by the features' spread first.

    Args:
        difference: ``(N, D)`` winner minus loser features of a population.
        shots: ``(S, D)`` of one user, 5 or 15 in the paper.
        n: components, 20 in the paper.
        temperature: of the weights.
    """
    heads = anchor.preference_pca(difference, n=n)
    margins = anchor.linear(shots, heads.to(as_float(shots)))
    return Drm(heads, hedge(margins.new_ones(len(heads)), margins, rate=1 / temperature))
