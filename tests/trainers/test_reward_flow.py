"""Rewards in a run: beside the rollout or after it, combined, routed, shaped, resumed, and too many failures."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from diffalign.trainers import preflight
from tests.tiny_pipelines import tiny_sd3
from tests.trainers.small_runs import disturb, events, feedback_of, redness, same, snapshot


def brightness(images, prompts, metadata):
    """In [0, 1]."""
    return images.mean((1, 2, 3))


def both(images, prompts, metadata):
    return images.mean((1, 2, 3)) * images.std((1, 2, 3))


def spread(images, prompts, metadata):
    return images.std((1, 2, 3))


def test_a_run_is_the_same_bit_for_bit_whether_scored_beside_the_roll_out_or_after_it(make):
    threads = set()

    def watched(images, prompts, metadata):
        threads.add(threading.current_thread().name)
        return redness(images, prompts, metadata)

    runs = {}
    for beside in (True, False):
        trainer = make(rewards=[watched, brightness], async_scoring=beside, name=f"run{beside}")
        trainer.train()
        runs[beside] = snapshot(trainer)
    assert same(runs[True], runs[False])
    assert threads == {"reward watched", "MainThread"}


def test_scoring_overlaps_the_rollout(make):
    trainer = make(rewards=redness)
    begun, go_on = threading.Event(), threading.Event()
    rolled = []
    original = trainer._roll_out

    def roll_out(*args):
        if rolled:
            assert begun.wait(20), "the first images are scored before the second are sampled"
            go_on.set()
        rolled.append(1)
        return original(*args)

    class Slow(type(trainer.rewards["redness"])):
        def __call__(self, images, prompts, metadata):
            begun.set()
            assert go_on.wait(20), "the rollout goes on while images are scored"
            return super().__call__(images, prompts, metadata)

    trainer.rewards["redness"].__class__ = Slow
    trainer._roll_out = roll_out
    assert trainer.collect(0).rewards["redness"].isfinite().all()


def test_a_mistake_in_the_wiring_ends_the_roll_out_and_not_only_the_run(make):
    raised, rolled = threading.Event(), []

    def wrong(images, prompts, metadata):
        raised.set()
        return metadata[0]["colour"]

    trainer = make(rewards=wrong, per_device_train_batch_size=1)
    original = trainer._roll_out

    def roll_out(*args):
        rolled.append(raised.wait(20) if rolled else None)
        return original(*args)

    trainer._roll_out = roll_out
    with pytest.raises(KeyError, match="colour"):
        trainer.collect(0)
    assert len(rolled) < 8


def test_a_rule_makes_the_advantages_of_one_reward(make):
    combined = make(rewards=[brightness, spread], reward_combination={"rule": "product"}, name="a")
    single = make(rewards=both, name="b")
    found, expected = (feedback_of(t, t.collect(0)) for t in (combined, single))
    assert torch.allclose(found.values, expected.values, atol=1e-4) and found.valid.all()
    plain = make(rewards=[brightness, spread], name="c")
    assert not torch.allclose(feedback_of(plain, plain.collect(0)).values, expected.values, atol=1e-2)


def test_transforms_reach_the_advantages(make):
    trainer = make(reward_transforms={"redness": ["rank"]}, scale_rewards="none")
    values = feedback_of(trainer, trainer.collect(0)).values.view(2, 4)
    assert torch.allclose(values.sort(1).values, torch.tensor([-0.5, -1 / 6, 1 / 6, 0.5]).expand(2, 4), atol=1e-6)


STATEFUL = {
    "rewards": [redness, brightness],
    "reward_transforms": {"redness": ["normalize"]},
    "reward_combination": {"rule": "lagrangian", "thresholds": {"brightness": 0.6}, "lr": 5.0},
    "scale_rewards": "none",
    "updates_per_rollout": 1,
}


def test_moments_and_multipliers_are_resumed_exactly(make, folder):
    whole = make(max_train_steps=4, name="whole", **STATEFUL)
    whole.train()
    make(max_train_steps=2, **STATEFUL).train()
    rest = make(max_train_steps=4, **STATEFUL)
    rest.train(resume_from_checkpoint="latest")
    assert same(snapshot(whole), snapshot(rest))
    assert set(rest.state.method["rewards"]) == {"moments", "multipliers"}
    multipliers = [line["reward/brightness/multiplier"] for line in events(folder)]
    assert len(set(multipliers)) == 4 and multipliers[-1] == rest.state.method["rewards"]["multipliers"]["brightness"]


def test_the_preflight_takes_moments_and_multipliers_back(make):
    trainer = make(**STATEFUL)
    preflight(trainer, full=True)
    assert trainer.state.method == {}


ROUTES = {"redness": {"tag": "colors"}, "counted": {"prompt": "^two"}}


def test_a_routed_reward_is_asked_about_its_prompts_alone_and_its_absence_is_no_failure(make, folder):
    asked = set()

    def counted(images, prompts, metadata):
        asked.update(prompts)
        return brightness(images, prompts, metadata)

    make(rewards=[redness, counted], reward_routes=ROUTES, preflight=True, max_failed_rewards=0.1).train()
    line = events(folder)[0]
    assert asked == {"two blue square"}
    assert line["reward/redness/nan"] == line["reward/counted/nan"] == 0 and line["advantage/abs_mean"] > 0
    assert math.isfinite(line["reward/counted/mean"])


def test_routed_rewards_make_the_advantages_of_their_own_prompts(make):
    trainer = make(rewards=[redness, brightness], reward_routes={"redness": {"tag": "colors"},
                   "brightness": {"tag": "counting"}}, scale_rewards="group")  # fmt: skip
    alone = {
        reward: make(rewards=reward, scale_rewards="group", name=reward.__name__) for reward in (redness, brightness)
    }
    batch = trainer.collect(0)
    tags = [record["metadata"]["tag"] for record in batch.spec.sample_records]
    expected = {reward: feedback_of(t, t.collect(0)).values for reward, t in alone.items()}
    right = [expected[redness if tag == "colors" else brightness][row] for row, tag in enumerate(tags)]
    assert torch.allclose(feedback_of(trainer, batch).values, torch.stack(right), atol=1e-5)


def patchy(share):
    def reward(images, prompts, metadata):
        values = redness(images, prompts, metadata)
        values[: round(share * len(values))] = math.nan
        return values

    return reward


def test_too_many_failures_end_the_run_saved(make, folder):
    failing = iter([0.0, 0.0, 0.75, 0.75])  # a call per micro-batch, two per rollout

    def judge(images, prompts, metadata):
        return patchy(next(failing))(images, prompts, metadata)

    with pytest.raises(RuntimeError, match="rollout 1: judge could not score 6 of 8 images.*latest goes on"):
        make(rewards=judge, max_train_steps=4, max_failed_rewards=0.5).train()
    assert (folder / "checkpoint-2").is_dir() and len(events(folder)) == 2
    make(rewards=redness, name="other").collect(0)


@pytest.mark.parametrize("keys", [{"max_failed_rewards": 0.75}, {"reward_weights": [0, 1]}])
def test_failures_that_are_borne_or_do_not_count_end_nothing(make, folder, keys):
    rewards = [patchy(0.75), brightness] if "reward_weights" in keys else patchy(0.75)
    make(rewards=rewards, **keys).train()
    assert events(folder)[0]["reward/reward/nan"] == 6


SHAPED = {"reward_transforms": {"redness": [{"sigmoid_ref": {"samples": 2}}]}}


@pytest.mark.parametrize("lora_r", [4, 0])
def test_references_are_the_frozen_models_and_are_made_once_per_prompt(make, lora_r):
    trainer = make(lora_r=lora_r, **SHAPED)
    records = trainer.records
    found = trainer.references.of(records)["redness"]
    forwards = trainer.policy.meter.drain()
    assert found.shape == (2, 2) and len(set(found.flatten().tolist())) == 4
    assert forwards == {"forward/reference": 2 * 2 * 3}
    disturb(trainer, 0.3)
    other = make(lora_r=lora_r, name="other", **SHAPED)
    disturb(other, 0.3)
    turned = other.references.of(records[::-1])["redness"]
    assert torch.allclose(turned.flip(0), found, atol=1e-5), "neither training nor the order of prompts matters"
    assert trainer.references.of(records)["redness"].equal(found) and not trainer.policy.meter.drain()


def test_a_shaped_run_trains(make, folder):
    make(**SHAPED).train()
    assert events(folder)[-1]["advantage/abs_mean"] > 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"reward_transforms": {"redness": ["rnk"]}}, "did you mean `rank`"),
        ({"reward_transforms": {"rednes": ["rank"]}}, "unknown reward in reward_transforms: `rednes`; did you mean"),
        ({"reward_combination": {"rule": "sum"}}, "unknown rule"),
        (
            {"reward_combination": {"rule": "product"}, "multi_objective_aggregation": "normalize_then_sum"},
            "leaves one",
        ),
        ({"reward_routes": {"redness": {"tag": "texts"}}}, "no training prompt matches the route of redness"),
        ({"reward_routes": {"redness": {"tag": "colors"}}}, "have no counted reward, first 'two blue square'"),
        ({"reward_options": {"redness": {"timout": 1}}}, "did you mean `timeout`"),
        ({"reward_options": {"redish": {}}}, "unknown reward in reward_options: `redish`; did you mean `redness`"),
        ({"max_failed_rewards": 0.0}, r"must lie in \(0, 1\]"),
    ],
)
def test_mistakes_are_told_before_the_model_is_looked_at(make, keys, message):
    with pytest.raises(ValueError, match=message):
        make(object(), **keys)


def test_options_protect_a_reward_of_the_run(make, folder):
    calls = []

    def slow(images, prompts, metadata):
        calls.append(len(images))
        return redness(images, prompts, metadata)

    make(tiny_sd3(), rewards=slow, reward_options={"slow": {"batch_size": 3, "timeout": 30.0}}).train()
    assert calls == [3, 1, 3, 1]
    assert events(folder)[0]["reward/slow/nan"] == 0
