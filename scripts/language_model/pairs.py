"""Objectives of a winner and a loser: in each group the answers with the largest and the smallest reward.

Names with a dot are functions of ``diffalign.losses`` (`preference.hinge`), the others ids of recipes with their
published settings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from batch import Batch, Objective
from torch import Tensor

from diffalign.losses import label_noise, preference, ratio_links, recipes
from diffalign.losses.log_ratio import log_ratio

BETA = 0.5  # of functions that have no published one


def sides(b: Batch, values: Tensor) -> tuple[Tensor, Tensor]:
    """Winner's and loser's entries of ``values (B, G, ...)``."""
    return b.winner(values), b.loser(values)


def margin(b: Batch) -> Tensor:
    """DPO's ``z`` of winner over loser, ``(B,)``."""
    return preference.pair_margin(*sides(b, b.r), beta=BETA)


def gap(b: Batch, scale: float = 1.0) -> Tensor:
    """Difference of the rewards, times ``scale``, ``(B,)``."""
    return scale * (b.winner(b.rewards) - b.loser(b.rewards))


def linked(loss: Callable[[Tensor], Tensor]) -> Objective:
    """A link of the margin."""
    return lambda b: loss(margin(b))


def noisy(label: float) -> Objective:
    """The logistic link under an uncertain label."""
    return lambda b: label_noise.soft_label(preference.logistic, margin(b), label)


def shaped(link: Callable[[Tensor], Tensor]) -> Objective:
    """The logistic link on a function of the log-ratio."""
    return lambda b: preference.logistic(preference.pair_margin(*map(link, sides(b, b.r))))


def on_log_ratios(name: str, **changes: Any) -> Objective:
    """A recipe of two summed log-ratios."""
    return lambda b: recipes.get(name)(*sides(b, b.r), **changes)


def on_tokens(name: str, **changes: Any) -> Objective:
    """A recipe on the token log-probs of two answers."""
    return lambda b: recipes.get(name)(*sides(b, b.logp), **changes)


def on_mixture(name: str) -> Objective:
    """A recipe against the reference and an earlier policy, here the same."""

    def objective(b: Batch) -> Tensor:
        logp, ref, old = (sides(b, values.sum(-1)) for values in (b.logp, b.ref, b.old))
        return recipes.get(name)(*logp, *zip(ref, old, strict=True))

    return objective


def plain_log_ratios(b: Batch) -> Tensor:
    """Token log-ratios summed by ``log_ratio``."""
    pair = zip(sides(b, b.logp), sides(b, b.ref), strict=True)
    return preference.logistic(preference.pair_margin(*(log_ratio(*side) for side in pair), beta=BETA))


OBJECTIVES: dict[str, Objective] = {
    "preference.logistic": linked(preference.logistic),
    "preference.focal": linked(partial(preference.focal, gamma=1.0)),
    "preference.hinge": linked(preference.hinge),
    "preference.smooth_hinge": linked(preference.smooth_hinge),
    "preference.square": linked(partial(preference.square, target=1.0)),
    "preference.linear": linked(preference.linear),
    "preference.probit": linked(preference.probit),
    "label_noise.soft_label": noisy(0.9),
    "label_noise.symmetric_noise": noisy(label_noise.symmetric_noise(1.0, flip=0.2)),
    "label_noise.robust_noise": noisy(label_noise.robust_noise(1.0, flip=0.1)),
    "label_noise.noise_mixture": linked(partial(label_noise.noise_mixture, flip=0.1)),
    "ratio_links.power_link": shaped(partial(ratio_links.power_link, alpha=0.5)),
    "ratio_links.js_link": shaped(ratio_links.js_link),
    "ratio_links.clip_link": shaped(partial(ratio_links.clip_link, eps=0.5)),
    "log_ratio.log_ratio": plain_log_ratios,
    **{name: on_log_ratios(name) for name in ("dpo", "con-j", "ipo", "f-dpo")},
    "rdpo-robust": on_log_ratios("rdpo-robust", flip=0.1),
    **{name: on_tokens(name) for name in ("simpo", "alphapo", "cpl")},
    **{name: on_mixture(name) for name in ("inpo", "mnpo")},
    "d3po": lambda b: recipes.get("d3po")(*sides(b, b.logp - b.ref)),  # tokens instead of denoising steps
    "osp": lambda b: recipes.get("osp")(*sides(b, b.r), gap(b, 4.0).sigmoid()),
    "irepo": lambda b: recipes.get("irepo")(*sides(b, b.r), gap(b, 4.0).sigmoid()),
    "dno": lambda b: recipes.get("dno")(*sides(b, b.r), *sides(b, 4 * b.rewards)),
    "refuel": lambda b: recipes.get("refuel")(*sides(b, b.r), *sides(b, 4 * b.rewards)),
    "madpo": lambda b: recipes.get("madpo")(*sides(b, b.r), gap(b, 4.0)),
    "flex-dpo": lambda b: recipes.get("flex-dpo")(*sides(b, b.r), b.winner(b.logp.mean(-1))),
    "rpo-sft": lambda b: recipes.get("rpo-sft")(*sides(b, b.r), b.winner(b.logp.mean(-1))),
    "vpo": lambda b: recipes.get("vpo")(*sides(b, b.r), b.winner(b.r), weight=0.1),
    "rdpo-rationales": lambda b: recipes.get("rdpo-rationales")(*sides(b, b.r), b.winner(b.logp.sum(-1))),
    "gepo": lambda b: recipes.get("gepo")(*(side[:, None] for side in sides(b, b.r))),
    "dppo-preference": lambda b: recipes.get("dppo-preference")(*sides(b, 1 - b.logp.exp())),
}
