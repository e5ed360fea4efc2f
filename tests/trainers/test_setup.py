"""What a trainer takes: models, rewards, prompts, trackers, run folders."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from peft import LoraConfig

from diffalign.models import adapt, has_lora, trainable_state
from diffalign.rewards.base import FunctionReward
from diffalign.trainers import BaseTrainer, PolicyGradientTrainer, Trainer, load_config, make_config
from diffalign.trainers.run import trackers
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import KEYS, RECORDS, disturb, events, redness, same, small_trainer

# --- models -----------------------------------------------------------------------------------------------------------


def test_a_pipeline_an_adapter_and_a_path_are_one_model(make, tmp_path):
    tiny_sd3().save_pretrained(tmp_path / "model")
    rewards = []
    for model in (tiny_sd3(), adapt(tiny_sd3()), str(tmp_path / "model"), tmp_path / "model"):
        trainer = make(model)
        assert isinstance(trainer, PolicyGradientTrainer) and has_lora(trainer.policy)
        rewards.append(trainer.collect(0).rewards["redness"])
    assert all(torch.allclose(rewards[0], other, atol=1e-6) for other in rewards[1:])


def test_the_model_may_stand_in_the_configuration(tmp_path):
    tiny_sd3().save_pretrained(tmp_path / "model")
    args = make_config({**KEYS, "pretrained_model_name_or_path": str(tmp_path / "model"), "eval_dataset": None})
    trainer = Trainer(args=args, reward_funcs=redness, train_dataset=RECORDS)
    assert trainer.args.pretrained_model_name_or_path == str(tmp_path / "model")


def test_the_log_names_a_model_that_was_given_as_an_object(make, tmp_path):
    assert make().args.pretrained_model_name_or_path == "StableDiffusion3Pipeline"
    assert make(adapt(tiny_sd()), sde_type="ddim", noise_level=1.0).args.pretrained_model_name_or_path == (
        "StableDiffusionPipeline"
    )
    tiny_sd3().save_pretrained(tmp_path / "model")
    loaded = type(tiny_sd3()).from_pretrained(str(tmp_path / "model"))
    assert make(loaded).args.pretrained_model_name_or_path == str(tmp_path / "model")


def test_an_unknown_model_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match="no model_index.json"):
        make(str(tmp_path))
    with pytest.raises(ValueError, match="there is no adapter for int"):
        make(3)


def test_options_of_the_family_reach_a_given_pipeline(make):
    assert make(max_sequence_length=5).policy.max_sequence_length == 5
    assert make(resolution=16).policy.latent_shape == (4, 4, 4)
    with pytest.raises(ValueError, match="has no such option"):
        make(tiny_sd(), sde_type="ddim", noise_level=1.0, max_sequence_length=5)


def test_image_shape_is_that_of_decoded_images(make):
    trainer = make(resolution=16)
    micro = next(iter(trainer.collect(0).mine.values()))
    assert tuple(micro.trajectory.images.shape[1:]) == trainer.policy.image_shape


# --- rewards ----------------------------------------------------------------------------------------------------------


def test_rewards_are_callables_objects_names_or_functions_in_files(make, tmp_path):
    (tmp_path / "mine.py").write_text("def bright(images, prompts, metadata):\n    return images.mean((1, 2, 3))\n")
    source = f"{tmp_path / 'mine.py'}:bright"
    named = FunctionReward(redness, name="rouge")
    trainer = make(rewards=[redness, named, "jpeg", source])
    names = list(trainer.rewards)
    assert names[:2] == ["redness", "rouge"] and names[2].startswith("jpeg") and "bright" in names[3]
    assert trainer.args.reward_funcs == ["redness", "rouge", "jpeg", source]
    found = trainer.collect(0).rewards
    assert torch.equal(found["redness"], found["rouge"]) and len(found) == 4
    assert make(rewards="jpeg").args.reward_funcs == ["jpeg"] and len(make(rewards=named).rewards) == 1


def test_the_saved_configuration_is_that_of_the_run(make, folder):
    make(rewards=[redness, "jpeg"], reward_weights=[1.0, 0.5], learning_rate=2e-3).train()
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["reward_funcs"] == ["redness", "jpeg"] and saved["reward_weights"] == [1.0, 0.5]
    assert saved["learning_rate"] == 2e-3 and saved["lora_r"] == 4
    assert load_config(folder / "config.yaml").learning_rate == 2e-3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rewards": [redness, redness]}, "two rewards are called 'redness'"),
        ({"rewards": [redness, "jpeg"], "reward_weights": [1.0]}, "1 reward_weights for 2 reward_funcs"),
        ({"rewards": ["jpgg"]}, "(?s)jpgg.*jpeg"),
        ({"rewards": [lambda images: images]}, "cannot be called as"),
        ({"reward_kwargs": {"jpeg": {}}}, "reward_kwargs names `jpeg`"),
        ({"rewards": [redness], "records": []}, "nothing to train on"),
        ({"records": [{"text": "a red circle"}]}, "a prompt record is a string or"),
        ({"records": [3]}, "a prompt record is a string or"),
        ({"task_weights": {"colours": 1.0}}, "task_weights names"),
        ({"num_generations": 1}, "a group of one"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"report_to": ["mlflow"]}, "mlflow"),
    ],
)
def test_bad_input_is_refused_before_any_work(make, keys, message):
    with pytest.raises(ValueError, match=message):
        make(**keys)


def test_no_prompts_to_train_on_is_refused():
    with pytest.raises(ValueError, match="there is nothing to train on"):
        Trainer(tiny_sd3(), {**KEYS, "train_dataset": "none", "eval_dataset": None}, reward_funcs=redness)


def test_keywords_of_a_reward_reach_it(make, tmp_path):
    text = "def scaled(images, prompts, metadata, factor=1.0):\n    return factor * images.mean((1, 2, 3))\n"
    (tmp_path / "mine.py").write_text(text)
    source = f"{tmp_path / 'mine.py'}:scaled"
    plain = make(rewards=[source]).collect(0).rewards
    tenfold = make(rewards=[source], reward_kwargs={source: {"factor": 10.0}}).collect(0).rewards
    for name in plain:
        assert torch.allclose(10 * plain[name], tenfold[name])


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_are_strings_or_records(make):
    records = ["a red circle", {"prompt": "two cross", "metadata": {"tag": "counting"}}, {"prompt": "x", "tag": "y"}]
    trainer = make(records=records)
    assert [(r["prompt"], r["metadata"]) for r in trainer.records] == [
        ("a red circle", {}),
        ("two cross", {"tag": "counting"}),
        ("x", {"tag": "y"}),
    ]
    assert len(make(records=records, max_train_samples=2).records) == 2


def test_metadata_reaches_the_reward(make):
    seen = []

    def watching(images, prompts, metadata):
        seen.extend(zip(prompts, [record["tag"] for record in metadata], strict=True))
        return redness(images, prompts, metadata)

    make(rewards=watching).collect(0)
    assert set(seen) == {(record["prompt"], record["metadata"]["tag"]) for record in RECORDS} and len(seen) == 8


def test_prompts_are_read_from_the_file_that_the_configuration_names(tmp_path):
    (tmp_path / "prompts.txt").write_text("a red circle\na blue cross\n")
    keys = {**KEYS, "train_dataset": str(tmp_path / "prompts.txt"), "eval_dataset": None}
    trainer = Trainer(tiny_sd3(), keys, reward_funcs=redness)
    assert [record["prompt"] for record in trainer.records] == ["a red circle", "a blue cross"]
    assert trainer.eval_records == []


# --- LoRA -------------------------------------------------------------------------------------------------------------


def test_a_peft_configuration_stands_for_the_lora_keys(make):
    config = LoraConfig(r=2, lora_alpha=6, lora_dropout=0.1, target_modules=["attn.to_q"])
    trainer = make(peft_config=config)
    args = trainer.args
    assert (args.lora_r, args.lora_alpha, args.lora_dropout, args.lora_target_modules) == (2, 6.0, 0.1, ["attn.to_q"])
    weights = trainable_state(trainer.policy)
    assert weights and all("attn.to_q" in name for name in weights)
    assert {min(value.shape) for value in weights.values()} == {2}
    assert trainer.policy.denoiser.peft_config["default"].lora_alpha == 6


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"use_rslora": True}, "use_rslora"),
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"target_modules": "all-linear"}, "all-linear"),
        ({"rank_pattern": {"to_q": 8}}, "rank_pattern"),
    ],
)
def test_what_a_peft_configuration_asks_beyond_them_is_refused_not_dropped(make, extra, named):
    with pytest.raises(ValueError, match=named):
        make(peft_config=LoraConfig(**{"r": 2, "target_modules": ["attn.to_q"], **extra}))


def test_training_goes_on_from_an_existing_lora(make, folder):
    first = make(name="first", lora_r=2, lora_alpha=6.0)
    disturb(first)
    first.train()
    second = make(lora_path=str(folder.parent / "first"))  # the keys say rank 4, the file says 2
    assert same(trainable_state(second.policy), trainable_state(first.policy))
    assert (second.args.lora_r, second.args.lora_alpha) == (2, 6.0)
    assert same(second.collect(0).rewards, first.collect(0).rewards)
    second.train()
    assert not same(trainable_state(second.policy), trainable_state(first.policy))
    plain = tiny_sd3()
    plain.load_lora_weights(str(folder))
    assert torch.allclose(
        small_trainer(folder.parent / "x", lora_path=str(folder)).collect(0).rewards["redness"],
        second.collect(0).rewards["redness"],
        atol=1e-6,
    )


def test_a_model_with_a_lora_of_its_own_is_refused(make):
    pipeline = tiny_sd3()
    make(pipeline)
    with pytest.raises(ValueError, match="carries a LoRA already"):
        make(pipeline)
    with pytest.raises(ValueError, match="holds no pytorch_lora_weights.safetensors"):
        make(lora_path=str(make().folder.parent))


# --- trackers ---------------------------------------------------------------------------------------------------------


def test_tensorboard_gets_the_numbers_of_each_step(make, folder):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make(report_to=["tensorboard"], max_train_steps=4).train()
    (found,) = {path.parent for path in folder.rglob("events.out.tfevents*") if "step/grad_norm" in tags(reading, path)}
    accumulator = reading.EventAccumulator(str(found)).Reload()
    points = [(point.step, point.value) for point in accumulator.Scalars("step/reward/redness/mean")]
    assert points == [(line["step"], pytest.approx(line["reward/redness/mean"])) for line in events(folder)]


def tags(reading, path):
    return reading.EventAccumulator(str(path.parent)).Reload().Tags()["scalars"]


def test_a_tracker_that_is_not_installed_is_an_error(make, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match=r"report_to names wandb, not installed here: pip install wandb"):
        make(report_to=["wandb"])


def test_without_trackers_nothing_is_sent_anywhere(make):
    trainer = make()
    assert trainer.accelerator.trackers == [] and trainer.accelerator.log_with == []
    assert isinstance(trainer, BaseTrainer)


def test_every_value_of_the_configuration_is_one_that_trackers_take():
    flat = trackers._flat(make_config({"task_weights": {"colors": 1.0}}))
    assert all(isinstance(value, (int, float, str, bool)) for value in flat.values())
    json.dumps(flat)
