"""Pair objectives with further inputs: other prompts, other models, judges, distributions.

Docstrings name the replacement of a model or person that this task lacks.
"""

from __future__ import annotations

import torch
from batch import Batch, Objective
from pairs import sides
from torch import Tensor
from world import PROMPT, correct, flipped_prompts, hidden_prompts

from diffalign.losses import recipes


def forward_kl(b: Batch) -> Tensor:
    """``sum_t KL(ref_t || policy_t)`` of each answer, ``(B, G)``."""
    policy, reference = b.full_log_probs()
    return (reference.exp() * (reference - policy)).sum((-1, -2))


def mapl(b: Batch) -> Tensor:
    """One answer under two prompts of opposite tasks."""
    asked, otherwise = sides(b, b.r), sides(b, b.log_ratios(flipped_prompts(b.tokens)).sum(-1))
    return recipes.get("mapl")(torch.cat([asked[0], otherwise[1]]), torch.cat([otherwise[0], asked[1]]))


def opa_dpo(b: Batch) -> Tensor:
    """The best answer is the expert's; the masked condition is the prompt without its task token."""
    return recipes.get("opa-dpo")(*sides(b, b.r), b.winner(b.log_ratios(hidden_prompts(b.tokens)).sum(-1)))


def srpo(b: Batch) -> Tensor:
    """Each answer is also the revision of the other."""
    winner, loser = sides(b, b.tokens)
    revised = torch.stack([torch.cat([loser, winner[:, PROMPT:]], 1), torch.cat([winner, loser[:, PROMPT:]], 1)], 1)
    return recipes.get("srpo-self-improving")(*sides(b, b.r), *b.log_ratios(revised).sum(-1).unbind(1))


def tgdpo(b: Batch) -> Tensor:
    """The guide scores the correct tokens."""
    token_ratios = b.logp - b.ref
    return recipes.get("tgdpo")(*sides(b, token_ratios), *sides(b, 2 * correct(b.tokens) - 1))


def t_reg(b: Batch) -> Tensor:
    """The contrast of the two prompts marks the correct tokens."""
    token_ratios = b.logp - b.ref
    return recipes.get("t-reg")(*sides(b, token_ratios), *sides(b, 2 * correct(b.tokens) - 1))


def cream(b: Batch) -> Tensor:
    """The two ranking models: one scores the whole answer, one all but its last token."""
    return recipes.get("cream")(*sides(b, b.r), b.rewards, correct(b.tokens)[..., :-1].mean(-1))


def svpo(b: Batch) -> Tensor:
    """Without a value head: its terms are constant."""
    values = torch.stack(sides(b, b.rewards))
    return recipes.get("svpo")(*sides(b, b.r), values, values)


def hypo(b: Batch) -> Tensor:
    """With the answers of the batch as fresh ones."""
    return recipes.get("hypo")(*sides(b, b.r), b.r.flatten())


def scir(b: Batch) -> Tensor:
    """The judge's logits are the rewards."""
    return recipes.get("scir")(*sides(b, b.r), torch.stack(sides(b, 4 * b.rewards), 1))


def gpm_gpo(b: Batch) -> Tensor:
    """The skew score of ``(reward, 1)`` is a difference of rewards; each winner is compared with its group."""
    v = torch.stack([4 * b.rewards, torch.ones_like(b.rewards)], -1)
    return recipes.get("gpm-gpo")(b.winner(b.r), b.winner(v), v, beta=0.5)


OBJECTIVES: dict[str, Objective] = {
    "tdpo": lambda b: recipes.get("tdpo")(*sides(b, b.r), *sides(b, forward_kl(b))),
    "mapl": mapl,
    "opa-dpo": opa_dpo,
    "srpo-self-improving": srpo,
    "tgdpo": tgdpo,
    "t-reg": t_reg,
    "cream": cream,
    "svpo": svpo,
    "hypo": hypo,
    "scir": scir,
    "gpm-gpo": gpm_gpo,
    "critic-v": lambda b: recipes.get("critic-v")(b.rewards, b.r),
    "implicit-po": lambda b: recipes.get("implicit-po")(b.rewards, -b.rewards, b.r),
}
