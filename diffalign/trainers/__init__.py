"""Training methods on one loop. A method is one file: its configuration class and its trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffalign._lazy import lazy

if TYPE_CHECKING:
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
    from diffalign.trainers.registry import (
        completed,
        load_config,
        make_config,
        method_names,
        methods,
        trainer_class,
    )
    from diffalign.trainers.reward_config import RewardConfig
    from diffalign.trainers.run.callbacks import Callback, TrainOutput
    from diffalign.trainers.run.evaluation import evaluate_policy
    from diffalign.trainers.trainer import Trainer

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
    "method_names",
    "methods",
    "preflight",
    "trainer_class",
]

_MODULES = {
    "AWMConfig": "awm",
    "AWMTrainer": "awm",
    "BaseTrainer": "base",
    "Callback": "run.callbacks",
    "Check": "checks.check",
    "NFTConfig": "nft",
    "NFTTrainer": "nft",
    "OnPolicyConfig": "on_policy_config",
    "OnPolicyTrainer": "on_policy",
    "PolicyGradientConfig": "policy_gradient_config",
    "PolicyGradientTrainer": "policy_gradient",
    "RewardConfig": "reward_config",
    "TrainOutput": "run.callbacks",
    "Trainer": "trainer",
    "completed": "registry",
    "evaluate_policy": "run.evaluation",
    "load_config": "registry",
    "make_config": "registry",
    "method_names": "registry",
    "methods": "registry",
    "preflight": "checks.preflight",
    "trainer_class": "registry",
}

__getattr__, __dir__ = lazy(
    __name__,
    {name: f"{__name__}.{module}:{name}" for name, module in _MODULES.items()}
    | {"RunConfig": "diffalign.config:RunConfig"},
)
