"""The run configuration: a frozen list of keys, types, ranges, and errors that name the way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffalign.config import ALIASES, RunConfig, changed, known_keys, load_config, make_config, save_config

# The public surface of `--key value` and of every recipe. Adding, renaming or removing a key is a visible change here.
FROZEN = """
pretrained_model_name_or_path revision variant resolution max_sequence_length
lora_r lora_alpha lora_dropout lora_target_modules lora_path gradient_checkpointing mixed_precision
num_inference_steps guidance_scale negative_prompt sde_type noise_level sde_window_size sde_window_range
sde_window_schedule sde_window_every sde_window_stride ode_solver post_window_fraction sde_last_step
timestep_fraction timestep_selection prefix_branches same_initial_noise uncond_grad
method num_generations prompts_per_rollout updates_per_rollout num_iterations advantage scale_rewards advantage_clip
group_by group_filter filter_mean filter_std history_size history_min_count ratio step_weights epsilon epsilon_high
trust_region kl_limit beta kl train_timesteps nft_beta awm_weighting beta_old old_decay old_decay_rate old_decay_start
reward_funcs reward_weights reward_kwargs multi_objective_aggregation reward_transforms reward_combination reward_routes
reward_options reward_cache async_scoring max_failed_rewards
max_train_steps per_device_train_batch_size learning_rate lr_scheduler lr_warmup_steps adam_beta1 adam_beta2
adam_weight_decay adam_epsilon max_grad_norm max_skipped_steps ema_decay ema_update_every seed
train_dataset eval_dataset max_train_samples max_eval_samples task_weights
eval_steps eval_guidance_scales eval_num_inference_steps eval_images_per_prompt eval_images_per_scale eval_rewards
watchdog compare eval_before output_dir overwrite_output_dir run_name report_to tracker_project_name checkpointing_steps
checkpoints_total_limit resume_from_checkpoint preflight
""".split()


def test_the_keys_are_frozen() -> None:
    assert list(known_keys()) == FROZEN


def test_every_key_explains_itself() -> None:
    texts = {f.name: f.metadata.get("help", "") for f in dataclasses.fields(RunConfig)}
    assert not {name for name, text in texts.items() if len(text) < 8}
    assert len(set(texts.values())) == len(texts), "two keys share one help text"


def test_aliases_point_at_keys_and_shadow_none() -> None:
    assert set(ALIASES.values()) <= set(FROZEN)
    assert not set(ALIASES) & set(FROZEN)


def test_the_defaults_are_valid_and_survive_yaml(tmp_path: Path) -> None:
    config = make_config({})
    assert config == RunConfig()
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_changed_values_survive_yaml(tmp_path: Path) -> None:
    config = make_config(
        {
            "learning_rate": 1e-8, "reward_funcs": ["shapes", "mine.py:score"], "reward_weights": [1, 0.5],
            "reward_kwargs": {"shapes": {"mode": "soft", "levels": [1, 2]}}, "task_weights": {"colors": 2},
            "negative_prompt": "blurry: yes, \u00e9", "sde_window_size": 2, "sde_window_range": [0, 3],
            "eval_dataset": None, "epsilon_high": 2e-4, "mixed_precision": "no", "report_to": ["wandb"],
        }
    )  # fmt: skip
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert set(yaml.safe_load((tmp_path / "config.yaml").read_text())) == set(FROZEN)


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config({}).seed = 3  # type: ignore[misc]


def test_defaults_are_not_shared_between_configs() -> None:
    make_config({}).reward_funcs.append("jpeg")
    assert make_config({}).reward_funcs == ["shapes"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [("learning_rte", "learning_rate"), ("num_generation", "num_generations"), ("clip_rang", "clip_range")],
)
def test_an_unknown_key_names_the_nearest(given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"unknown configuration key `{given}`; did you mean `{meant}`"):
        make_config({given: 1})


def test_an_unknown_key_without_neighbours_says_where_the_keys_are() -> None:
    with pytest.raises(ValueError, match="--help` lists all keys"):
        make_config({"zzzzzz": 1})


def test_aliases_and_dashes_are_understood() -> None:
    assert make_config({"rank": 4, "model": "shapes-unet", "learning-rate": 1e-5}) == make_config(
        {"lora_r": 4, "pretrained_model_name_or_path": "shapes-unet", "learning_rate": 1e-5}
    )


def test_one_key_under_two_names_is_refused() -> None:
    with pytest.raises(ValueError, match="`rank` and `lora_r` are the same key"):
        make_config({"rank": 4, "lora_r": 8})


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("max_train_steps", 20.0, 20),
        ("max_train_steps", "1e3", 1000),
        ("lora_r", "16", 16),
        ("reward_funcs", "jpeg", ["jpeg"]),
        ("eval_guidance_scales", [1, "2.5"], [1.0, 2.5]),
        ("mixed_precision", False, "no"),
        ("report_to", "none", []),
        ("eval_dataset", "none", None),
        ("scale_rewards", "none", "none"),
        ("negative_prompt", "none", "none"),
        ("task_weights", {"colors": 2}, {"colors": 2.0}),
        ("sde_window_size", None, None),
    ],
)
def test_values_are_read_into_their_type(key: str, value: Any, read: Any) -> None:
    got = getattr(make_config({key: value}), key)
    assert got == read and type(got) is type(read)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_train_steps", 1.5, "must be of type int"),
        ("max_train_steps", True, "must be of type int"),
        ("max_train_steps", None, "must be of type int"),
        ("learning_rate", "fast", "must be of type float"),
        ("learning_rate", float("nan"), "must be of type float"),
        ("learning_rate", "inf", "must be of type float"),
        ("compare", "yes please", "must be of type bool"),
        ("compare", 1, "must be of type bool"),
        ("output_dir", 3, "must be of type str"),
        ("eval_guidance_scales", ["a"], "must be of type float"),
        ("task_weights", [1], "must be a mapping"),
        ("sde_type", "flow-sde", "did you mean `flow_sde`"),
        ("advantage", "groups", "is not one of group, running"),
    ],
)
def test_a_wrong_type_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make_config({key: value})
    assert key in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0}, "learning_rate = 0.0 must be positive"),
        ({"epsilon_high": 0}, "epsilon_high = 0.0 must be positive"),
        ({"resolution": -1}, "resolution = -1 must be positive"),
        ({"beta": -0.1}, "beta = -0.1 must not be negative"),
        ({"seed": -1}, "seed = -1 must not be negative"),
        ({"ema_decay": 1.0}, "ema_decay = 1.0 must lie in"),
        ({"adam_beta2": 1}, "adam_beta2 = 1.0 must lie in"),
        ({"timestep_fraction": 0}, "timestep_fraction = 0.0 must lie in"),
        ({"timestep_fraction": 1.5}, "timestep_fraction = 1.5 must lie in"),
        ({"sde_type": "ode"}, "no density.*choose flow_sde"),
        ({"noise_level": 0}, "needs noise"),
        ({"noise_level": 0, "method": "nft"}, "say sde_type = ode"),
        ({"method": "nft", "ratio": "guard", "prefix_branches": 2}, "nft does not read ratio, prefix_branches"),
        ({"nft_beta": 0.1}, "policy_gradient does not read nft_beta"),
        ({"method": "awm", "sde_type": "ode", "same_initial_noise": True}, "one image many times"),
        ({"method": "nft", "sde_type": "ode", "train_timesteps": 6, "timestep_fraction": 0.5}, "leave 5 to choose"),
        ({"train_timesteps": 0, "method": "awm"}, "train_timesteps = 0 must be positive"),
        ({"post_window_fraction": 0.0}, "post_window_fraction = 0.0 must lie in"),
        ({"post_window_fraction": 0.4}, "need a window"),
        ({"sde_window_schedule": "progressive"}, "need a window"),
        ({"sde_window_every": 0}, "sde_window_every = 0 must be positive"),
        ({"group_by": "seed"}, "each has its own"),
        ({"group_filter": "varied", "advantage": "running"}, "group_filter needs groups"),
        ({"old_decay": 1.0}, "old_decay = 1.0 must lie in"),
        ({"kl_limit": -1}, "kl_limit = -1.0 must not be negative"),
        ({"num_generations": 1}, "group of one.*advantage = running"),
        ({"same_initial_noise": True, "num_generations": 1, "advantage": "running"}, "num_generations >= 2"),
        ({"prefix_branches": 4}, "needs a window"),
        ({"sde_window_range": [0, 3]}, "without sde_window_size"),
        ({"sde_window_size": 11}, "starts up to 0 fit"),
        ({"sde_window_size": 0}, "a window of 0 steps"),
        ({"sde_window_size": 3, "sde_window_range": [0, 9]}, "starts up to 7 fit"),
        ({"sde_window_size": 3, "sde_window_range": [-1, 2]}, "does not lie in the schedule"),
        ({"sde_window_size": 3, "sde_window_range": [4, 2]}, "two rising positions"),
        ({"sde_window_size": 3, "sde_window_range": [4]}, "two rising positions"),
        ({"sde_window_size": 2, "prefix_branches": 3}, "must be a multiple of prefix_branches = 3"),
        ({"reward_funcs": []}, "name at least one reward"),
        ({"reward_weights": [1, 2]}, "2 reward_weights for 1 reward_funcs"),
        ({"reward_kwargs": {"shape": {}}}, "no reward of this run; did you mean `shapes`"),
        ({"report_to": ["tensorbord"]}, "valid: tensorboard, wandb"),
        ({"task_weights": {"colors": 0}}, "not all zero"),
        ({"eval_guidance_scales": []}, "name at least one guidance scale"),
        ({"eval_images_per_scale": 5}, "must not exceed eval_images_per_prompt = 4"),
        ({"eval_images_per_scale": 0}, "must be positive"),
        ({"compare": True, "eval_dataset": None}, "need held-out prompts"),
        ({"watchdog": "stop", "eval_rewards": ["jpeg"]}, "watchdog = stop needs eval_steps"),
        ({"watchdog": "stop", "eval_steps": 5, "eval_rewards": ["shapes"]}, "eval_rewards that are not trained"),
    ],
)
def test_values_that_can_never_work_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(values)


@pytest.mark.parametrize(
    "values",
    [
        {"num_generations": 1, "advantage": "running"},
        {"sde_window_size": 10},
        {"sde_window_size": 2, "sde_window_range": [0, 9], "prefix_branches": 4},
        {"sde_type": "memoryless", "noise_level": 0},
        {"reward_funcs": ["mine.py:score"], "reward_kwargs": {"mine.py:score": {"a": 1}}},
        {"eval_rewards": ["jpeg"], "reward_kwargs": {"jpeg": {"quality": 50}}},
        {"eval_dataset": None},
        {"method": "nft", "sde_type": "ode", "train_timesteps": 10},
        {"method": "awm", "sde_type": "flow_sde"},
        {"group_by": "seed", "sde_window_size": 1, "prefix_branches": 4},
        {"group_by": "seed", "same_initial_noise": True},
    ],
)
def test_values_at_the_border_are_accepted(values: dict[str, Any]) -> None:
    assert make_config(values) != RunConfig()


def test_changed_checks_like_any_other_configuration() -> None:
    config = make_config({"seed": 3})
    assert changed(config, learning_rate="1e-5") == make_config({"seed": 3, "learning_rate": 1e-5})
    assert config.learning_rate == RunConfig().learning_rate
    with pytest.raises(ValueError, match="must be positive"):
        changed(config, rank=4, learning_rate=-1)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("lora_r: 8\nseed: 1\n")
    config = load_config(path, {"rank": 4})
    assert (config.lora_r, config.seed) == (4, 1)


def test_an_empty_file_is_the_default_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# nothing yet\n")
    assert load_config(path) == RunConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold `key: value` lines; it holds a list"),
        ("a: [1\n", "is not valid YAML"),
        ("1: 2\n", "unknown configuration key `1`"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(path)
