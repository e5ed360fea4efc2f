"""All objectives by name, and those that this task cannot show, with the reason."""

from __future__ import annotations

import groups
import imitations
import pairs
import pairs_in_context
import policies
import released
from batch import Objective
from loop import Result, train_policy, train_preference

from diffalign.naming import nearest

PREFERENCE: dict[str, Objective] = {
    **pairs.OBJECTIVES,
    **pairs_in_context.OBJECTIVES,
    **groups.OBJECTIVES,
    **released.PREFERENCE,
}
POLICY: dict[str, Objective] = {**policies.OBJECTIVES, **imitations.OBJECTIVES, **released.POLICY}

NOT_HERE = {
    "props": "a proposal policy for under-represented data: no reward rises",
    "tspo": "selects frames or time steps",
    "sgrpo-supergroup": "shapes rewards; any policy objective takes them",
    "riskpo": "shapes advantages; any policy objective takes them",
    "dft": "weights tokens by their probability, which are all equal here: too slow for so few steps",
    "cdr": "a reward",
    "sr-ppo": "a reward",
}


def names() -> list[str]:
    """Every objective, preferences first."""
    return [*PREFERENCE, *POLICY]


def unknown(name: str) -> str:
    """The message for an unknown name."""
    if name in NOT_HERE:
        return f"{name!r} is not among the objectives here: {NOT_HERE[name]}"
    return f"no objective is named {name!r}{nearest(name, names(), count=3) or '.'} --list lists them"


def train(name: str, *, steps: int, seed: int) -> Result:
    """Trains a tiny model with one objective.

    Raises:
        ValueError: the name is unknown.
    """
    if name in PREFERENCE:
        return train_preference(PREFERENCE[name], steps=steps, seed=seed)
    if name in POLICY:
        return train_policy(POLICY[name], steps=steps, seed=seed)
    raise ValueError(unknown(name))
