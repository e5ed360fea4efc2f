"""Training methods on one loop. A method is one file: its configuration class and its trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffalign.config import RunConfig
from diffalign.trainers.awm import AWMConfig, AWMTrainer
from diffalign.trainers.base import BaseTrainer
from diffalign.trainers.checks.check import Check
from diffalign.trainers.checks.preflight import preflight
from diffalign.trainers.nft import NFTConfig, NFTTrainer
from diffalign.trainers.on_policy import OnPolicyTrainer
from diffalign.trainers.on_policy_config import OnPolicyConfig
from diffalign.trainers.policy_gradient import PolicyGradientTrainer
from diffalign.trainers.policy_gradient_config import PolicyGradientConfig
from diffalign.trainers.registry import completed, load_config, make_config, methods, trainer_class
from diffalign.trainers.reward_config import RewardConfig
from diffalign.trainers.run.callbacks import Callback, TrainOutput
from diffalign.trainers.run.evaluation import evaluate_policy


class Trainer:
    """The trainer of `args.method`: `Trainer(model=..., args=..., reward_funcs=...)` makes a `BaseTrainer`.

    Args:
        model: a diffusers pipeline, an adapter, or a name, folder or hub id; default as args say.
        args: a method's configuration, a plain `RunConfig`, or a mapping of keys; default all defaults.
        options: other arguments of `BaseTrainer`.

    Raises:
        ValueError: an unknown method or key, or anything that could not train.
    """

    def __new__(  # type: ignore[misc]
        cls, model: Any = None, args: RunConfig | Mapping[str, Any] | None = None, **options: Any
    ) -> BaseTrainer:
        """Choose the class and make one."""
        config = completed(args)
        return trainer_class(config.method)(model, config, **options)


__all__ = [
    "AWMConfig",
    "AWMTrainer",
    "BaseTrainer",
    "Callback",
    "Check",
    "NFTConfig",
    "NFTTrainer",
    "OnPolicyConfig",
    "OnPolicyTrainer",
    "PolicyGradientConfig",
    "PolicyGradientTrainer",
    "RewardConfig",
    "RunConfig",
    "TrainOutput",
    "Trainer",
    "completed",
    "evaluate_policy",
    "load_config",
    "make_config",
    "methods",
    "preflight",
    "trainer_class",
]
