"""Objectives of pairs that look at more than two log-ratios: other prompts, other models, judges, distributions.

Where a method wants a model or a person that this small world has not, what stands in is said.
"""

from __future__ import annotations

import torch
from batch import Batch, Objective
from pairs import sides
from torch import Tensor
from world import PROMPT, asked_otherwise, not_told, right

from diffalign.losses import recipes


def forward_kl(b: Batch) -> Tensor:
    """``sum_t KL(ref_t || policy_t)`` of each answer, ``(B, G)``."""
    policy, reference = b.words()
    return (reference.exp() * (reference - policy)).sum((-1, -2))


def mapl(b: Batch) -> Tensor:
    """One answer under two prompts: what is good where one kind is asked for is bad where the other is."""
    asked, otherwise = sides(b, b.r), sides(b, b.log_ratios(asked_otherwise(b.tokens)).sum(-1))
    return recipes.get("mapl")(torch.cat([asked[0], otherwise[1]]), torch.cat([otherwise[0], asked[1]]))


def opa_dpo(b: Batch) -> Tensor:
    """The best answer is the expert's; the masked condition does not say which kind."""
    return recipes.get("opa-dpo")(*sides(b, b.r), b.winner(b.log_ratios(not_told(b.tokens)).sum(-1)))


def srpo(b: Batch) -> Tensor:
    """Each answer is also given as the revision of the other: it follows both."""
    winner, loser = sides(b, b.tokens)
    revised = torch.stack([torch.cat([loser, winner[:, PROMPT:]], 1), torch.cat([winner, loser[:, PROMPT:]], 1)], 1)
    return recipes.get("srpo-self-improving")(*sides(b, b.r), *b.log_ratios(revised).sum(-1).unbind(1))


def tgdpo(b: Batch) -> Tensor:
    """The guide knows which words are right."""
    token_ratios = b.logp - b.ref
    return recipes.get("tgdpo")(*sides(b, token_ratios), *sides(b, 2 * right(b.tokens) - 1))


def t_reg(b: Batch) -> Tensor:
    """The contrast of a better and a worse prompt is known: which words are right."""
    token_ratios = b.logp - b.ref
    return recipes.get("t-reg")(*sides(b, token_ratios), *sides(b, 2 * right(b.tokens) - 1))


def cream(b: Batch) -> Tensor:
    """The two models that rank are judges: one reads the whole answer, one all but its last word."""
    return recipes.get("cream")(*sides(b, b.r), b.rewards, right(b.tokens)[..., :-1].mean(-1))


def svpo(b: Batch) -> Tensor:
    """Without a value head: its terms are constant."""
    values = torch.stack(sides(b, b.rewards))
    return recipes.get("svpo")(*sides(b, b.r), values, values)


def hypo(b: Batch) -> Tensor:
    """All answers of the batch stand for fresh ones."""
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
