"""Trainers: one base, one file per method family."""

from __future__ import annotations

from typing import Any

from diffalign.config import RunConfig
from diffalign.trainers.awm import AWMTrainer
from diffalign.trainers.base import BaseTrainer
from diffalign.trainers.checks import Check
from diffalign.trainers.evaluation import evaluate_policy
from diffalign.trainers.nft import NFTTrainer
from diffalign.trainers.policy_gradient import PolicyGradientTrainer
from diffalign.trainers.preflight import preflight

METHODS: dict[str, type[BaseTrainer]] = {
    "policy_gradient": PolicyGradientTrainer,
    "nft": NFTTrainer,
    "awm": AWMTrainer,
}
"""args.method -> trainer."""


def Trainer(model: Any = None, args: RunConfig | None = None, **kwargs: Any) -> BaseTrainer:  # noqa: N802
    """The trainer of `args.method`; arguments as `BaseTrainer`."""
    args = args or RunConfig()
    return METHODS[args.method](model, args, **kwargs)


__all__ = [
    "METHODS",
    "AWMTrainer",
    "BaseTrainer",
    "Check",
    "NFTTrainer",
    "PolicyGradientTrainer",
    "Trainer",
    "evaluate_policy",
    "preflight",
]
