"""What a check says, and the checks that several methods make."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diffalign.config import RunConfig


class Check(NamedTuple):
    """One thing looked at.

    Attributes:
        name: what was checked.
        passed: whether it holds.
        figure: what was measured.
        advice: what to do when it does not hold.
    """

    name: str
    passed: bool
    figure: str
    advice: str


def no_dropout(config: RunConfig, why: str) -> Check:
    """Updates see the network that sampled."""
    return Check(
        "no dropout in updates",
        config.lora_dropout == 0,
        f"lora_dropout {config.lora_dropout:g}",
        f"{why}: set lora_dropout to 0.",
    )


def kl_has_gradient(kl: Tensor) -> Check:
    """The KL term (B,) reaches the weights."""
    return Check(
        "KL has a gradient",
        kl.requires_grad and bool(kl.isfinite().all()),
        f"mean KL {float(kl.detach().mean()):.3g}",
        "The KL term is cut off from the weights: report this configuration.",
    )
