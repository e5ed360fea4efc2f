"""What a configuration may hold: ranges of single keys, and keys that exclude or need each other."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign.config.values import nearest

if TYPE_CHECKING:
    from diffalign.config.run_config import RunConfig

POSITIVE = (
    "num_inference_steps num_generations prompts_per_rollout updates_per_rollout num_iterations max_train_steps "
    "per_device_train_batch_size learning_rate max_grad_norm advantage_clip epsilon epsilon_high lora_alpha "
    "prefix_branches eval_images_per_prompt eval_images_per_scale eval_num_inference_steps ema_update_every "
    "history_size history_min_count resolution max_sequence_length max_train_samples max_eval_samples "
    "checkpoints_total_limit adam_epsilon sde_window_every sde_window_stride train_timesteps nft_beta"
).split()
NON_NEGATIVE = (
    "lora_r beta lr_warmup_steps eval_steps checkpointing_steps adam_weight_decay noise_level max_skipped_steps seed "
    "filter_std kl_limit beta_old old_decay_rate old_decay_start"
).split()
BELOW_ONE = "ema_decay lora_dropout adam_beta1 adam_beta2 old_decay".split()
FRACTIONS = "timestep_fraction post_window_fraction max_failed_rewards".split()


def check_ranges(config: RunConfig) -> None:
    """Refuse values that can never work, before anything is loaded.

    Raises:
        ValueError: what was given, what is valid.
    """
    for key in POSITIVE:
        if getattr(config, key) is not None and getattr(config, key) <= 0:
            raise ValueError(f"{key} = {getattr(config, key)} must be positive")
    for key in NON_NEGATIVE:
        if getattr(config, key) < 0:
            raise ValueError(f"{key} = {getattr(config, key)} must not be negative")
    for key in BELOW_ONE:
        if not 0 <= getattr(config, key) < 1:
            raise ValueError(f"{key} = {getattr(config, key)} must lie in [0, 1)")
    for key in FRACTIONS:
        if not 0 < getattr(config, key) <= 1:
            raise ValueError(f"{key} = {getattr(config, key)} must lie in (0, 1]")
    _check_method(config)
    _check_groups(config)
    _check_window(config)
    _check_rewards(config)
    _check_evaluation(config)


STEP_KEYS = (
    "ratio step_weights trust_region kl_limit epsilon_high kl sde_window_size sde_window_schedule sde_window_every "
    "sde_window_stride post_window_fraction prefix_branches uncond_grad"
).split()
"""What decides about recorded steps, which nft and awm have none of."""

FORWARD_KEYS = "train_timesteps nft_beta awm_weighting beta_old old_decay old_decay_rate old_decay_start".split()


def _check_method(config: RunConfig) -> None:
    foreign = FORWARD_KEYS if config.method == "policy_gradient" else STEP_KEYS
    defaults = {f.name: f.default for f in fields(config)}
    given = [key for key in foreign if getattr(config, key) != defaults[key]]
    if given:
        raise ValueError(f"method = {config.method} does not read {', '.join(given)}: leave them out")
    if config.method == "policy_gradient":
        _check_density(config)
    elif config.sde_type != "ode" and config.noise_level == 0 and config.sde_type != "memoryless":
        raise ValueError(f"noise_level = 0 makes {config.sde_type} deterministic: say sde_type = ode")


def _check_density(config: RunConfig) -> None:
    if config.sde_type == "ode":
        raise ValueError(
            "sde_type = ode has no density, so no policy gradient: choose flow_sde, dance_sde or cps (flow models), "
            "ddim with noise_level > 0 (Stable Diffusion); method = nft and awm train on ODE roll-outs"
        )
    if config.noise_level == 0 and config.sde_type != "memoryless":
        raise ValueError(f"noise_level = 0 makes {config.sde_type} deterministic; a policy gradient needs noise")


def _check_groups(config: RunConfig) -> None:
    if config.advantage == "group" and config.num_generations < 2:
        raise ValueError(
            f"num_generations = {config.num_generations}: a group of one has advantage 0 and nothing is learned; "
            "use at least 2, or advantage = running (per-prompt history)"
        )
    if config.same_initial_noise and config.num_generations < 2:
        raise ValueError("same_initial_noise needs num_generations >= 2")
    if config.same_initial_noise and config.sde_type == "ode":
        raise ValueError(
            "same_initial_noise with sde_type = ode makes one image many times: drop one of the two, or use step noise"
        )
    if config.group_by == "seed" and config.prefix_branches < 2 and not config.same_initial_noise:
        raise ValueError(
            "group_by = seed compares images of one x_T, and here each has its own: set prefix_branches (with "
            "sde_window_size) or same_initial_noise"
        )
    if config.group_filter != "none" and config.advantage == "running":
        raise ValueError("group_filter needs groups: advantage = running compares a prompt with its own past")


def _check_window(config: RunConfig) -> None:
    size, steps = config.sde_window_size, config.num_inference_steps
    trained = math.floor(steps * config.timestep_fraction + 1e-9)
    if config.train_timesteps is not None and config.train_timesteps > trained:
        raise ValueError(
            f"train_timesteps = {config.train_timesteps}, but {steps} steps with timestep_fraction = "
            f"{config.timestep_fraction:g} leave {trained} to choose from"
        )
    if size is None:
        if config.sde_window_schedule != "random" or config.post_window_fraction < 1:
            raise ValueError("sde_window_schedule and post_window_fraction need a window: set sde_window_size")
        if config.sde_window_range is not None:
            raise ValueError("sde_window_range is given without sde_window_size")
        if config.prefix_branches > 1:
            raise ValueError("prefix_branches > 1 needs a window (sde_window_size): without one there is no prefix")
        return
    given = config.sde_window_range
    if given is not None and (len(given) != 2 or given[0] >= given[1]):
        raise ValueError(f"sde_window_range = {given} must be two rising positions, [first, last) starts of the window")
    low, high = given or [0, max(steps - size, 1)]
    if size < 1 or low < 0 or high - 1 + size > steps:
        raise ValueError(
            f"a window of {size} steps that starts in [{low}, {high}) does not lie in the schedule of {steps} steps; "
            f"starts up to {max(steps - size, 0)} fit"
        )
    if config.num_generations % config.prefix_branches:
        raise ValueError(
            f"num_generations = {config.num_generations} must be a multiple of "
            f"prefix_branches = {config.prefix_branches}"
        )


def _check_rewards(config: RunConfig) -> None:
    if not config.reward_funcs:
        raise ValueError("reward_funcs is empty: name at least one reward (`diffalign rewards list`)")
    if config.reward_weights is not None and len(config.reward_weights) != len(config.reward_funcs):
        raise ValueError(f"{len(config.reward_weights)} reward_weights for {len(config.reward_funcs)} reward_funcs")
    if config.reward_weights is not None and not any(config.reward_weights):
        raise ValueError("all reward_weights are 0: nothing would be learned")
    names = [*config.reward_funcs, *config.eval_rewards]
    for name in config.reward_kwargs:
        if name not in names:
            raise ValueError(f"reward_kwargs names `{name}`, which is no reward of this run{nearest(name, names)}")
    unknown = set(config.report_to) - {"tensorboard", "wandb"}
    if unknown:
        raise ValueError(f"report_to names {sorted(unknown)}; valid: tensorboard, wandb, or none")


def _check_evaluation(config: RunConfig) -> None:
    weights = config.task_weights.values()
    if weights and (min(weights) < 0 or max(weights) == 0):
        raise ValueError(f"task_weights = {config.task_weights} must not be negative, and not all zero")
    if not config.eval_guidance_scales:
        raise ValueError("eval_guidance_scales is empty: name at least one guidance scale, for example [1.0, 3.0]")
    if (config.eval_images_per_scale or 0) > config.eval_images_per_prompt:
        raise ValueError(
            f"eval_images_per_scale = {config.eval_images_per_scale} must not exceed eval_images_per_prompt = "
            f"{config.eval_images_per_prompt}, of which it is a part"
        )
    if config.eval_dataset is None and (config.compare or config.eval_steps):
        raise ValueError("compare and eval_steps need held-out prompts: set eval_dataset, or turn both off")
    if config.eval_before and not config.compare:
        raise ValueError("eval_before stands for the evaluation before training, which compare asks for: set compare")
    if config.eval_before and not Path(config.eval_before).is_file():
        raise ValueError(f"eval_before = {config.eval_before} is no file: name evaluation/before.json of another run")
    held_out = set(config.eval_rewards) - set(config.reward_funcs)
    if config.watchdog == "stop" and not (config.eval_steps and held_out):
        raise ValueError(
            "watchdog = stop needs eval_steps > 0 and eval_rewards that are not trained: it compares the two; set "
            "them, or watchdog: flag"
        )
