"""The run configuration: a frozen list of keys, types, ranges, and errors that name the way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffalign.config import RunConfig, aliases, changed, converted, known_keys, read_config, save_config
from diffalign.trainers import (
    AWMConfig,
    NFTConfig,
    OnPolicyConfig,
    PolicyGradientConfig,
    RewardConfig,
    completed,
    load_config,
    make_config,
    methods,
)
from diffalign.trainers.forward_process_config import ForwardProcessConfig

# The public surface of `--key value` and of every recipe, by class; a class adds to the one above it. Adding, renaming
# or removing a key is a visible change here.
FROZEN: dict[type[RunConfig], str] = {
    RunConfig: """
        method pretrained_model_name_or_path revision variant resolution height width embedded_guidance
        max_sequence_length lora_r lora_alpha lora_dropout lora_target_modules lora_path gradient_checkpointing
        mixed_precision denoiser_dtype num_inference_steps guidance_scale negative_prompt max_train_steps
        per_device_train_batch_size learning_rate lr_scheduler lr_warmup_steps adam_beta1 adam_beta2 adam_weight_decay
        adam_epsilon max_grad_norm max_skipped_steps ema_decay ema_update_every seed train_dataset eval_dataset
        max_train_samples max_eval_samples eval_rewards reward_kwargs reward_options reward_cache eval_steps
        eval_guidance_scales eval_num_inference_steps eval_images_per_prompt eval_images_per_scale validation_prompts
        watchdog compare eval_before output_dir overwrite_output_dir run_name report_to tracker_project_name
        checkpointing_steps checkpoints_total_limit resume_from_checkpoint preflight""",
    RewardConfig: """
        prompts_per_rollout task_weights reward_funcs reward_weights multi_objective_aggregation reward_transforms
        reward_combination reward_routes async_scoring max_failed_rewards""",
    OnPolicyConfig: """
        sde_type noise_level ode_solver same_initial_noise num_generations updates_per_rollout num_iterations advantage
        scale_rewards reward_std reward_std_epsilon advantage_clip group_by group_filter filter_mean filter_std
        history_size history_min_count beta""",
    PolicyGradientConfig: """
        sde_window_size sde_window_range sde_window_schedule sde_window_every sde_window_stride post_window_fraction
        sde_last_step timestep_fraction timestep_selection prefix_branches uncond_grad ratio step_weights epsilon
        epsilon_high trust_region kl_limit kl""",
    ForwardProcessConfig: """
        timestep_fraction timestep_selection first_timestep train_timesteps beta_old old_decay old_decay_rate
        old_decay_start""",
    NFTConfig: "nft_beta",
    AWMConfig: "awm_weighting epsilon epsilon_high",
}


def test_every_method_has_a_configuration_of_its_own() -> None:
    assert {trainer.Config for trainer in methods().values()} == {PolicyGradientConfig, NFTConfig, AWMConfig}


@pytest.mark.parametrize("cls", FROZEN, ids=lambda cls: cls.__name__)
def test_the_keys_are_frozen(cls: type[RunConfig]) -> None:
    inherited = known_keys(cls.__base__) if cls is not RunConfig else ()
    assert [name for name in known_keys(cls) if name not in inherited] == FROZEN[cls].split()


@pytest.mark.parametrize("cls", FROZEN, ids=lambda cls: cls.__name__)
def test_every_key_explains_itself(cls: type[RunConfig]) -> None:
    texts = {f.name: f.metadata.get("help", "") for f in dataclasses.fields(cls)}
    assert not {name for name, text in texts.items() if len(text) < 8}
    assert len(set(texts.values())) == len(texts), "two keys share one help text"


@pytest.mark.parametrize("cls", FROZEN, ids=lambda cls: cls.__name__)
def test_aliases_name_keys_and_hide_none(cls: type[RunConfig]) -> None:
    assert set(aliases(cls).values()) <= set(known_keys(cls)) and not set(aliases(cls)) & set(known_keys(cls))


@pytest.mark.parametrize("method", ["policy_gradient", "nft", "awm"])
def test_the_defaults_are_valid_and_survive_yaml(tmp_path: Path, method: str) -> None:
    config = make_config({"method": method})
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


def test_overwriting_and_resuming_are_never_saved_nor_taken_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save_config(make_config({"overwrite_output_dir": True, "resume_from_checkpoint": "latest"}), path)
    saved = yaml.safe_load(path.read_text())
    assert not {"overwrite_output_dir", "resume_from_checkpoint"} & set(saved) and saved["config_version"] == 2
    path.write_text("overwrite_output_dir: true\n")
    with pytest.warns(UserWarning, match="overwrite_output_dir, which is not taken from a file"):
        assert load_config(path) == make_config({})
    assert load_config(path, {"overwrite_output_dir": True}).overwrite_output_dir


def test_a_configuration_of_version_1_loses_the_keys_of_other_methods(tmp_path: Path) -> None:
    old = {"method": "nft", "nft_beta": 0.5, "awm_weighting": "ghuber", "kl_limit": 1e-5, "preflight": True, "seed": 3}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    assert load_config(tmp_path / "old.yaml") == NFTConfig(nft_beta=0.5, seed=3)
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old | {"kl_limit": 0.5}))
    with pytest.raises(ValueError, match="`kl_limit` is a key of method = policy_gradient"):
        load_config(tmp_path / "old.yaml")


def test_a_configuration_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("config_version: 99\n")
    with pytest.raises(ValueError, match="config_version 99.*reads up to 2"):
        read_config(tmp_path / "new.yaml")


def test_a_plain_configuration_is_completed_by_its_method() -> None:
    assert completed(None) == PolicyGradientConfig() == completed({})
    assert completed(RunConfig(seed=3, method="nft")) == NFTConfig(seed=3)
    with pytest.raises(ValueError, match="there is no method `drafft`"):
        completed(RunConfig(method="drafft"))
    with pytest.raises(ValueError, match="args is a NFTConfig, and this trainer takes a AWMConfig"):
        converted(NFTConfig(), AWMConfig)


@pytest.mark.parametrize(
    ("values", "owner"),
    [
        ({"method": "nft", "ratio": "guard"}, "ratio` is a key of method = policy_gradient"),
        ({"method": "nft", "epsilon": 1e-4}, "epsilon` is a key of method = awm and policy_gradient"),
        ({"method": "awm", "nft_beta": 0.1}, "nft_beta` is a key of method = nft"),
        ({"nft_beta": 0.1}, "nft_beta` is a key of method = nft, and this run has method = policy_gradient"),
    ],
)
def test_a_key_of_another_method_is_refused_by_its_owner(values: dict[str, Any], owner: str) -> None:
    with pytest.raises(ValueError, match=owner):
        make_config(values)


def test_numbers_inside_nested_yaml_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("reward_transforms: {shapes: [{clamp: [1e-3, 1.5e2]}]}\nlearning_rate: 1e-4\n")
    config = load_config(tmp_path / "run.yaml")
    assert config.reward_transforms == {"shapes": [{"clamp": [0.001, 150.0]}]}  # type: ignore[attr-defined]
    assert config.learning_rate == 1e-4


def test_paths_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    config = RunConfig(output_dir="~/run", train_dataset="$DATA/prompts.txt", run_name="~/name")
    assert (config.output_dir, config.train_dataset, config.run_name) == (
        "/home/me/run", "/data/prompts.txt", "~/name"
    )  # fmt: skip


@pytest.mark.parametrize("text", ["1e-4", 1e-4, "0.0001"])
def test_python_converts_and_checks_like_yaml(text: Any) -> None:
    assert PolicyGradientConfig(learning_rate=text).learning_rate == 1e-4
    assert PolicyGradientConfig(reward_funcs="jpeg").reward_funcs == ["jpeg"]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean `exact`"):
        PolicyGradientConfig(kl="exactt")  # type: ignore[arg-type]


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config({}).seed = 3  # type: ignore[misc]


def test_defaults_are_not_shared_between_configs() -> None:
    PolicyGradientConfig().reward_funcs.append("jpeg")
    assert PolicyGradientConfig().reward_funcs == ["shapes"]


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
        ({"sde_type": "cps", "beta": 0.04}, "kl = dt_scaled is Flow-GRPO's SDE form"),
        ({"method": "awm", "first_timestep": 10}, "leave 0 to choose"),
        ({"history_min_count": 40, "advantage": "running"}, "never reached with history_size = 32"),
        ({"method": "awm", "sde_type": "ode", "same_initial_noise": True}, "one image many times"),
        ({"method": "nft", "sde_type": "ode", "train_timesteps": 6, "timestep_fraction": 0.5}, "leave 5 to choose"),
        ({"train_timesteps": 0, "method": "awm"}, "train_timesteps = 0 must be positive"),
        ({"post_window_fraction": 0.0}, "post_window_fraction = 0.0 must lie in"),
        ({"post_window_fraction": 0.4}, "need a window"),
        ({"sde_window_schedule": "progressive"}, "need a window"),
        ({"sde_window_every": 0}, "sde_window_every = 0 must be positive"),
        ({"group_by": "seed"}, "each has its own"),
        ({"group_filter": "varied", "advantage": "running"}, "group_filter needs groups"),
        ({"method": "nft", "old_decay": 1.0}, "old_decay = 1.0 must lie in"),
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
        ({"reward_funcs": ["jpeg"], "reward_weights": [1, 2]}, "2 reward_weights for 1 reward_funcs"),
        (
            {"reward_funcs": ["shapes", "jpeg"], "reward_kwargs": {"shape": {}}},
            "no reward of this run; did you mean",
        ),
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
    assert make_config(values) != make_config({})


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
    assert load_config(path) == make_config({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold `key: value` lines; it holds a list"),
        ("a: [1\n", "not valid YAML"),
        ("1: 2\n", "unknown configuration key `1`"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(path)
