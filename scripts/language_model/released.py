"""Losses of TRL's trainers and of verl that the other tables lack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from batch import Batch, Objective
from groups import desirable, on_samples
from pairs import BETA, on_log_ratios, on_tokens, sides
from policies import adv, surrogate
from torch import Tensor

from diffalign.losses import (
    policy_covariance,
    policy_divergence,
    policy_sequence,
    policy_soft,
    recipes,
    unpaired,
)


def aot(b: Batch) -> Tensor:
    """On summed log-probs of policy and reference."""
    return recipes.get("aot")(*sides(b, b.logp.sum(-1)), *sides(b, b.ref.sum(-1)), beta=BETA)


def length_normalised(b: Batch) -> Tensor:
    """On token log-ratios."""
    return recipes.get("sigmoid-norm")(*sides(b, b.logp - b.ref), beta=4 * BETA)


def ld_dpo(b: Batch) -> Tensor:
    """Equal lengths: DPO."""
    return recipes.get("ld-dpo")(*sides(b, b.logp), *sides(b, b.ref), beta=BETA)


def wpo(b: Batch) -> Tensor:
    """With the sums of squared probabilities at each token."""
    square = (2 * b.full_log_probs()[0].detach()).logsumexp(-1)
    return recipes.get("wpo")(*sides(b, b.r), *sides(b, b.logp.detach()), *sides(b, square), beta=BETA)


def kto(b: Batch) -> Tensor:
    """The KL is estimated on the batch's own answers."""
    return recipes.get("kto")(b.r.flatten(), desirable(b), b.r.detach().flatten(), beta=BETA)


def with_log_probs(objective: Callable[..., Tensor], **settings: Any) -> Objective:
    """An objective that also needs token log-probs."""
    return lambda b: objective(b.x, adv(b), logp=b.logp.flatten(0, 1), **settings)


def clip_cov(b: Batch) -> Tensor:
    """With a share of a tenth."""
    generator = b.state.setdefault("clip_cov", torch.Generator().manual_seed(0))
    return with_log_probs(policy_covariance.clip_cov, generator=generator, share=0.1, low=0.2)(b)


PREFERENCE: dict[str, Objective] = {
    **{
        name: on_log_ratios(name, beta=BETA)
        for name in ("hinge", "exo-pair", "nca-pair", "bco-pair", "apo-zero", "apo-down", "sppo-hard", "discopop")
    },
    "aot": aot,
    "aot-unpaired": on_log_ratios("aot-unpaired", beta=BETA),
    "sigmoid-norm": length_normalised,
    **{name: on_tokens(name, beta=BETA) for name in ("cpo", "cpo-hinge", "orpo", "tpo", "tpo-l")},
    "cpo-ipo": on_tokens("cpo-ipo", tau=BETA),
    "ld-dpo": ld_dpo,
    "wpo": wpo,
    "kto": kto,
    "apo-zero-unpaired": lambda b: recipes.get("apo-zero-unpaired")(b.r.flatten(), desirable(b), beta=BETA),
    "unpaired.risk_seeking": on_samples(unpaired.risk_seeking),
}
POLICY: dict[str, Objective] = {
    "policy_soft.cispo": surrogate(policy_soft.cispo),
    "policy_soft.sapo": surrogate(policy_soft.sapo),
    "policy_soft.vespo": surrogate(policy_soft.vespo),
    "policy_soft.dro": surrogate(policy_soft.dro),
    "policy_sequence.sequence_clip": surrogate(policy_sequence.sequence_clip),
    "policy_sequence.gspo": lambda b: policy_sequence.gspo(b.x, adv(b), eps_low=0.2, eps_high=0.2),
    "policy_sequence.gspo_token": lambda b: policy_sequence.gspo_token(b.x, adv(b), eps_low=0.2, eps_high=0.2),
    "policy_sequence.gmpo": surrogate(policy_sequence.gmpo),
    "policy_divergence.dppo_tv": with_log_probs(policy_divergence.dppo_tv),
    "policy_divergence.dppo_kl": with_log_probs(policy_divergence.dppo_kl),
    "policy_covariance.clip_cov": clip_cov,
    "policy_covariance.kl_cov": with_log_probs(policy_covariance.kl_cov, share=0.1, kl_coef=0.1),
    "sft": lambda b: recipes.get("sft")(b.winner(b.logp)),
}
