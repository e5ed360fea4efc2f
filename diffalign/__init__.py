"""diffalign: align diffusion and flow text-to-image models with rewards and preferences.

The public names are imported on first use, so that `import diffalign` is quick and needs none of the heavy libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffalign._lazy import lazy

if TYPE_CHECKING:
    from diffalign import evaluation, losses, models, rewards, sampling, trainers
    from diffalign.citations import cite
    from diffalign.config import RunConfig
    from diffalign.models import Adapter, adapt, load_lora, load_policy
    from diffalign.sampling import (
        Dynamics,
        Policy,
        Schedule,
        StepPlan,
        Trajectory,
        cps,
        dance_sde,
        ddim,
        dpmpp2m,
        flow_sde,
        make_plan,
        memoryless,
        ode,
        replay,
        rollout,
    )
    from diffalign.trainers import (
        AWMConfig,
        AWMTrainer,
        BaseTrainer,
        Callback,
        NFTConfig,
        NFTTrainer,
        OnPolicyTrainer,
        PolicyGradientConfig,
        PolicyGradientTrainer,
        Trainer,
        TrainOutput,
        evaluate_policy,
        load_config,
        make_config,
        methods,
        preflight,
    )

__version__ = "0.1.0"

_PUBLIC = {
    "diffalign.citations": ("cite",),
    "diffalign.config": ("RunConfig",),
    "diffalign.models": ("Adapter", "adapt", "load_lora", "load_policy"),
    "diffalign.sampling": (
        "Dynamics", "Policy", "Schedule", "StepPlan", "Trajectory", "cps", "dance_sde", "ddim", "dpmpp2m", "flow_sde",
        "make_plan", "memoryless", "ode", "replay", "rollout",
    ),
    "diffalign.trainers": (
        "AWMConfig", "AWMTrainer", "BaseTrainer", "Callback", "NFTConfig", "NFTTrainer", "OnPolicyTrainer",
        "PolicyGradientConfig", "PolicyGradientTrainer", "TrainOutput", "Trainer", "evaluate_policy", "load_config",
        "make_config", "methods", "preflight",
    ),
}  # fmt: skip
_PACKAGES = ("evaluation", "losses", "models", "rewards", "sampling", "trainers")

__getattr__, __dir__ = lazy(
    __name__,
    {name: f"{module}:{name}" for module, names in _PUBLIC.items() for name in names}
    | {name: f"diffalign.{name}" for name in _PACKAGES},
)

__all__ = [
    "AWMConfig",
    "AWMTrainer",
    "Adapter",
    "BaseTrainer",
    "Callback",
    "Dynamics",
    "NFTConfig",
    "NFTTrainer",
    "OnPolicyTrainer",
    "Policy",
    "PolicyGradientConfig",
    "PolicyGradientTrainer",
    "RunConfig",
    "Schedule",
    "StepPlan",
    "TrainOutput",
    "Trainer",
    "Trajectory",
    "__version__",
    "adapt",
    "cite",
    "cps",
    "dance_sde",
    "ddim",
    "dpmpp2m",
    "evaluate_policy",
    "evaluation",
    "flow_sde",
    "load_config",
    "load_lora",
    "load_policy",
    "losses",
    "make_config",
    "make_plan",
    "memoryless",
    "methods",
    "models",
    "ode",
    "preflight",
    "replay",
    "rewards",
    "rollout",
    "sampling",
    "trainers",
]
