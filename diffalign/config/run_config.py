"""The run configuration: one frozen dataclass, read from YAML and `--key value`, unknown keys refused."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from diffalign.config.foreign_names import suggestion
from diffalign.config.rules import check_ranges
from diffalign.config.values import coerce


def _key(default: Any, text: str) -> Any:
    """A configuration key with its help text."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run. Names follow TRL and diffusers; each key explains itself in `--help`."""

    # model
    pretrained_model_name_or_path: str = _key("shapes-flow", "shipped checkpoint name, diffusers folder, or hub id")
    revision: str | None = _key(None, "hub revision of the model")
    variant: str | None = _key(None, "weight variant of the model, for example fp16")
    resolution: int | None = _key(None, "image height and width in pixels; default: the pipeline's own")
    max_sequence_length: int | None = _key(None, "T5 tokens; default: the smaller of 256 and the tokenizer's limit")
    # what is trained
    lora_r: int = _key(32, "LoRA rank; 0 trains all weights of the denoiser")
    lora_alpha: float = _key(64.0, "LoRA scale is lora_alpha / lora_r")
    lora_dropout: float = _key(0.0, "LoRA dropout; the ratio is exact only at 0")
    lora_target_modules: list[str] | None = _key(None, "module names that get LoRA; default: the family's attention")
    lora_path: str | None = _key(None, "folder of an existing LoRA to go on training")
    gradient_checkpointing: bool = _key(False, "recompute the denoiser in backward: less memory, one more forward")
    mixed_precision: Literal["no", "bf16", "fp16"] = _key(
        "no", "autocast of the denoiser; steps and log-probs stay fp32"
    )
    # sampling
    num_inference_steps: int = _key(10, "denoising steps of training roll-outs")
    guidance_scale: float = _key(1.0, "classifier-free guidance of roll-outs and training; 1 = conditional branch only")
    negative_prompt: str = _key("", "text of the unconditional branch; the empty string is the trained null prompt")
    sde_type: Literal["flow_sde", "dance_sde", "cps", "ddim", "memoryless", "ode"] = _key(
        "flow_sde", "step noise: flow_sde(a), dance_sde(eta), cps(a), ddim(eta), memoryless, ode"
    )
    noise_level: float = _key(0.7, "a or eta of sde_type")
    sde_window_size: int | None = _key(None, "stochastic steps per roll-out, the rest is ODE; default: every step")
    sde_window_range: list[int] | None = _key(None, "[first, last) positions where the window may start; default: all")
    sde_window_schedule: Literal["random", "progressive", "decay", "exp_decay"] = _key(
        "random", "how the window moves: drawn per roll-out, or in order with a constant, linear or exponential stay"
    )
    sde_window_every: int = _key(25, "roll-outs at each position of an ordered window")
    sde_window_stride: int = _key(1, "steps an ordered window moves by")
    ode_solver: Literal["euler", "dpmpp2m"] = _key(
        "euler", "deterministic steps of roll-outs: Euler or DPM-Solver++ 2M"
    )
    post_window_fraction: float = _key(1.0, "share of the steps after the window that is taken (MixGRPO-Flash 0.4)")
    sde_last_step: bool = _key(
        False, "keep noise on the last step (released Flow-GRPO does; DDIM needs it to train it)"
    )
    timestep_fraction: float = _key(1.0, "fraction of the stochastic (nft, awm: of all) steps that is trained")
    timestep_selection: Literal["first", "random"] = _key(
        "first", "which steps that fraction is: the earliest, or a draw for each sample (DanceGRPO, DiffusionNFT)"
    )
    prefix_branches: int = _key(1, "samples that share the deterministic prefix before the window (Flow-GRPO-Fast)")
    same_initial_noise: bool = _key(False, "one x_T for the whole group (DanceGRPO)")
    uncond_grad: bool = _key(False, "back-propagate through the unconditional branch too")
    # method
    method: Literal["policy_gradient", "nft", "awm"] = _key(
        "policy_gradient", "policy_gradient (needs step noise); nft (DiffusionNFT) and awm need none"
    )
    num_generations: int = _key(16, "images per prompt: the group size")
    prompts_per_rollout: int = _key(16, "prompts (groups) per roll-out")
    updates_per_rollout: int = _key(2, "optimiser steps the images of one roll-out are shared out to")
    num_iterations: int = _key(1, "passes over each roll-out")
    advantage: Literal["group", "running"] = _key("group", "group statistics (GRPO) or per-prompt history (DDPO)")
    scale_rewards: Literal["group", "batch", "none"] = _key(
        "batch", "divisor of centred rewards: group, batch or no std"
    )
    advantage_clip: float = _key(5.0, "advantages are clipped to +- this")
    group_by: Literal["prompt", "seed"] = _key(
        "prompt", "what a group is: the images of a prompt, or the branches of one x_T (TempFlow-GRPO)"
    )
    group_filter: Literal["none", "varied", "not_saturated", "unsolved_and_varied"] = _key(
        "none", "groups trained: all, those with spread, those not (good and uniform), those neither good nor uniform"
    )
    filter_mean: float = _key(0.9, "group_filter: a group whose mean reward is above this is good")
    filter_std: float = _key(0.05, "group_filter: a group whose reward std is below this is uniform")
    history_size: int = _key(32, "rewards kept per prompt by advantage = running")
    history_min_count: int = _key(16, "rewards a prompt needs before its own statistics are used")
    ratio: Literal["plain", "cps", "guard"] = _key("plain", "log-ratio: plain, cps (times 2 c^2), guard (centred)")
    step_weights: Literal["uniform", "tempflow", "guard"] = _key("uniform", "weight of each step's loss")
    epsilon: float = _key(1e-4, "PPO clip below 1, on log-probs averaged over latent elements")
    epsilon_high: float | None = _key(None, "PPO clip above 1; default: epsilon")
    trust_region: Literal["clip", "kl_mask"] = _key(
        "clip", "what bounds a step: PPO's clip, or holding steps beyond kl_limit (Flow-DPPO)"
    )
    kl_limit: float = _key(1e-5, "trust_region = kl_mask: largest step KL to the roll-out policy, per latent element")
    beta: float = _key(0.0, "weight of the KL to the reference policy (adapter off)")
    kl: Literal["dt_scaled", "exact", "velocity"] = _key("dt_scaled", "KL form; dt_scaled is released Flow-GRPO's")
    # nft and awm
    train_timesteps: int | None = _key(None, "noise levels per image and update; default: the whole timestep_fraction")
    nft_beta: float = _key(1.0, "how far nft's implicit good and bad policies stand apart")
    awm_weighting: Literal["uniform", "t", "t2", "huber", "ghuber"] = _key(
        "ghuber", "awm's weight of the matching error: 1, t, t^2, Huber or generalised Huber"
    )
    beta_old: float = _key(0.0, "weight of the velocity distance to the averaged (old) policy")
    old_decay: float = _key(0.5, "highest decay of the old policy, averaged once per roll-out; 0 = a copy")
    old_decay_rate: float = _key(0.001, "growth of that decay per optimiser step")
    old_decay_start: int = _key(0, "optimiser steps before it grows")
    # rewards
    reward_funcs: list[str] = _key(["shapes"], "reward names, or file.py:function")
    reward_weights: list[float] | None = _key(None, "one weight per reward; default 1")
    reward_kwargs: dict[str, dict[str, Any]] = _key({}, "keyword arguments per reward name")
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = _key(
        "sum_then_normalize", "several rewards: weigh then normalise, or normalise each then weigh (GDPO)"
    )
    reward_transforms: dict[str, Any] = _key({}, "per reward a list of transforms: clamp, affine, rank, normalize, ...")
    reward_combination: dict[str, Any] = _key({}, "{rule: name, option: value}; default the sum by reward_weights")
    reward_routes: dict[str, dict[str, Any]] = _key({}, "per reward {metadata key: values, prompt: regex} it is for")
    reward_options: dict[str, dict[str, Any]] = _key(
        {}, "per reward device, batch_size, worker (thread, process), timeout, retries, backoff (seconds)"
    )
    reward_cache: str | None = _key(None, "file or folder that keeps scores by content; default: none are kept")
    async_scoring: bool = _key(True, "score images beside the roll-out, in one thread per reward; same scores")
    max_failed_rewards: float = _key(1.0, "share of a roll-out a counted reward may fail on; above it the run stops")
    # optimisation
    max_train_steps: int = _key(100, "optimiser steps")
    per_device_train_batch_size: int = _key(32, "images per forward; results do not depend on it beyond rounding")
    learning_rate: float = _key(3e-4, "AdamW learning rate")
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = _key(
        "constant_with_warmup", "learning-rate schedule"
    )
    lr_warmup_steps: int = _key(0, "warm-up steps")
    adam_beta1: float = _key(0.9, "AdamW beta1")
    adam_beta2: float = _key(0.999, "AdamW beta2")
    adam_weight_decay: float = _key(1e-4, "AdamW weight decay")
    adam_epsilon: float = _key(1e-8, "AdamW epsilon")
    max_grad_norm: float = _key(1.0, "gradient norm clip")
    max_skipped_steps: int = _key(10, "steps with a non-finite loss or gradient that are skipped before the run stops")
    ema_decay: float = _key(0.0, "decay of the averaged weights, which are then evaluated and saved; 0 = off")
    ema_update_every: int = _key(1, "optimiser steps between EMA updates")
    seed: int = _key(0, "seed of prompts, noise and initialisation")
    # data
    train_dataset: str = _key("shapes:train", "shapes:train, a .txt of prompts, or a .jsonl with prompt and metadata")
    eval_dataset: str | None = _key("shapes:heldout", "held-out prompts, same forms; none = no evaluation")
    max_train_samples: int | None = _key(None, "use only the first n training prompts")
    max_eval_samples: int | None = _key(None, "use only the first n evaluation prompts")
    task_weights: dict[str, float] = _key({}, "share of each task (metadata tag) among drawn prompts; default uniform")
    # evaluation
    eval_steps: int = _key(0, "optimiser steps between evaluations while training; 0 = none")
    eval_guidance_scales: list[float] = _key([1.0, 2.0, 3.0, 5.0], "before and after: the best of these is reported")
    eval_num_inference_steps: int | None = _key(None, "ODE steps of evaluation; default num_inference_steps")
    eval_images_per_prompt: int = _key(4, "images per held-out prompt")
    eval_images_per_scale: int | None = _key(
        None, "of these, how many choose the best guidance scale, which alone is then measured on all; default all"
    )
    eval_rewards: list[str] = _key([], "held-out rewards: measured, never trained")
    watchdog: Literal["off", "flag", "stop"] = _key(
        "flag", "when eval_rewards part from what is trained (needs eval_steps): warn, or end the run"
    )
    compare: bool = _key(False, "evaluate before and after training by the full protocol and report the gain")
    eval_before: str | None = _key(
        None, "evaluation/before.json of another run on this model, taken instead of evaluating before (needs compare)"
    )
    # output
    output_dir: str = _key("runs/diffalign", "run folder")
    overwrite_output_dir: bool = _key(False, "replace the run that output_dir holds, instead of refusing to start")
    run_name: str | None = _key(None, "name shown in the report and by trackers")
    report_to: list[str] = _key([], "trackers beside metrics.jsonl: tensorboard, wandb")
    tracker_project_name: str = _key("diffalign", "project name for trackers")
    checkpointing_steps: int = _key(0, "optimiser steps between checkpoints; 0 = only at the end")
    checkpoints_total_limit: int | None = _key(None, "checkpoints kept")
    resume_from_checkpoint: str | None = _key(None, "checkpoint folder, latest, or auto (newest whole one, or anew)")
    preflight: bool = _key(True, "check the run before step 1 (ratio = 1, reward spread, moving weights)")


ALIASES: dict[str, str] = {
    "model": "pretrained_model_name_or_path",
    "rank": "lora_r",
    "group_size": "num_generations",
    "clip_range": "epsilon",
    "batch_size": "per_device_train_batch_size",
}
"""Short or foreign names that are understood; the saved config has the full ones."""


def known_keys() -> tuple[str, ...]:
    """Every configuration key, in order of declaration."""
    return tuple(f.name for f in fields(RunConfig))


def make_config(values: Mapping[str, Any]) -> RunConfig:
    """A configuration from keys and values.

    Raises:
        ValueError: an unknown key (named with the nearest), a value of the wrong type or outside its range.
    """
    hints = typing.get_type_hints(RunConfig)
    checked = {key: coerce(key, value, hints[key]) for key, value in canonical(values).items()}
    config = RunConfig(**checked)
    check_ranges(config)
    return config


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A configuration from a YAML file, with overrides on top.

    Raises:
        ValueError: the file is not a mapping, or as `make_config`.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold `key: value` lines; it holds a {type(values).__name__}")
    return make_config(canonical(values) | canonical(overrides or {}))


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write every key with its resolved value as YAML."""
    Path(path).write_text(yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def changed(config: RunConfig, **values: Any) -> RunConfig:
    """A copy with some keys changed, checked like any other configuration."""
    return make_config(asdict(config) | canonical(values))


def canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under full key names.

    Raises:
        ValueError: an unknown key, or one key given twice under two names.
    """
    given: dict[str, str] = {}
    for key in values:
        name = _canonical(str(key))
        if name in given:
            raise ValueError(f"`{given[name]}` and `{key}` are the same key, `{name}`: give one of them")
        given[name] = key
    return {name: values[key] for name, key in given.items()}


def _canonical(key: str) -> str:
    name = ALIASES.get(key.replace("-", "_"), key.replace("-", "_"))
    if name not in known_keys():
        hint = suggestion(name, [*known_keys(), *ALIASES])
        raise ValueError(f"unknown configuration key `{key}`{hint or '; `diffalign train --help` lists all keys'}")
    return name
