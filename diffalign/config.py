"""The run configuration: one frozen dataclass, read from YAML and `--key value`, unknown keys refused."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml


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
    eval_rewards: list[str] = _key([], "held-out rewards: measured, never trained")
    watchdog: Literal["off", "flag", "stop"] = _key(
        "flag", "when eval_rewards part from what is trained (needs eval_steps): warn, or end the run"
    )
    compare: bool = _key(False, "evaluate before and after training by the full protocol and report the gain")
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
    checked = {key: _coerce(key, value, hints[key]) for key, value in canonical(values).items()}
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


def nearest(word: str, valid: Iterable[str]) -> str:
    """'; did you mean `x`?' when a valid word is close, else the empty string."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""


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
        hint = nearest(name, [*known_keys(), *ALIASES])
        raise ValueError(f"unknown configuration key `{key}`{hint or '; `diffalign train --help` lists all keys'}")
    return name


def _coerce(key: str, value: Any, hint: Any) -> Any:
    """The value in the annotated type: ints become floats, numbers in strings are read, anything else is an error."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "none":  # every union here is `... | None`, and YAML has no bare `none`
            return None
        return _coerce(key, value, next(option for option in options if option is not type(None)))
    if origin is Literal:
        if value is False and "no" in options:  # YAML reads a bare `no` as false
            return "no"
        if value not in options:
            raise ValueError(
                f"{key} = {value!r} is not one of {', '.join(map(str, options))}{nearest(str(value), options)}"
            )
        return value
    if origin is list:
        items = value if isinstance(value, (list, tuple)) else [] if value == "none" else [value]
        return [_coerce(key, item, options[0]) for item in items]
    if origin is dict:
        return _coerce_dict(key, value, options)
    return _coerce_scalar(key, value, hint)


def _coerce_dict(key: str, value: Any, options: tuple[Any, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a mapping; got {value!r}")
    inner = options[1]
    return {str(k): v if inner is Any else _coerce(f"{key}.{k}", v, inner) for k, v in value.items()}


def _coerce_scalar(key: str, value: Any, hint: Any) -> Any:
    if hint in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        number = _number(value)  # YAML reads 1e-4 as a string
        if number is not None and hint is float:
            return float(number)
        if number is not None and number == int(number):
            return int(number)
    elif isinstance(value, hint) and hint not in (int, float):
        return value
    raise ValueError(f"{key} must be of type {hint.__name__}; got {value!r} ({type(value).__name__})")


def _number(value: int | float | str) -> int | float | None:
    """A finite number, or None; integers stay exact."""
    for read in (int, float):
        try:
            number = read(value) if isinstance(value, str) else value
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None


POSITIVE = (
    "num_inference_steps num_generations prompts_per_rollout updates_per_rollout num_iterations max_train_steps "
    "per_device_train_batch_size learning_rate max_grad_norm advantage_clip epsilon epsilon_high lora_alpha "
    "prefix_branches eval_images_per_prompt eval_num_inference_steps ema_update_every history_size history_min_count "
    "resolution max_sequence_length max_train_samples max_eval_samples checkpoints_total_limit adam_epsilon "
    "sde_window_every sde_window_stride train_timesteps nft_beta"
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
    given = [key for key in foreign if getattr(config, key) != _default(key)]
    if given:
        raise ValueError(f"method = {config.method} does not read {', '.join(given)}: leave them out")
    if config.method == "policy_gradient":
        _check_density(config)
    elif config.sde_type != "ode" and config.noise_level == 0 and config.sde_type != "memoryless":
        raise ValueError(f"noise_level = 0 makes {config.sde_type} deterministic: say sde_type = ode")


def _default(key: str) -> Any:
    return next(f.default for f in fields(RunConfig) if f.name == key)


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
    if config.eval_dataset is None and (config.compare or config.eval_steps):
        raise ValueError("compare and eval_steps need held-out prompts: set eval_dataset, or turn both off")
    held_out = set(config.eval_rewards) - set(config.reward_funcs)
    if config.watchdog == "stop" and not (config.eval_steps and held_out):
        raise ValueError(
            "watchdog = stop needs eval_steps > 0 and eval_rewards that are not trained: it compares the two; set "
            "them, or watchdog: flag"
        )
