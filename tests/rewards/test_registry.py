from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards import registry

ROOT = Path(__file__).resolve().parents[2]
Install = Callable[..., Path]

PLUGIN = """
import torch
from diffalign.rewards import FunctionReward

def make(factor=1.0):
    return FunctionReward(lambda images, prompts, metadata: factor * images.mean((1, 2, 3)), name="bright")
"""


def brightness(images: Tensor, prompts: Sequence[str], metadata: Sequence[dict[str, Any]]) -> Tensor:
    return images.mean((1, 2, 3))


def call(reward: rewards.Reward, images: Tensor) -> Tensor:
    return reward(images, [""] * len(images), [{}] * len(images))


def test_built_ins_come_from_the_project_file() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["diffalign.rewards"]
    own = {entry.name: entry.value for entry in rewards.entries() if entry.distribution == "diffalign"}
    assert own == declared
    assert {"shapes", "jpeg"} <= set(own)


def test_stale_metadata_of_an_editable_install_does_not_count(install: Install) -> None:
    install("diffalign", "left_over", PLUGIN)
    assert "left_over" not in rewards.names()
    assert rewards.get("jpeg").name == "jpeg_compressibility"


def test_an_installation_has_no_project_file_beside_it(tmp_path: Path) -> None:
    other = tmp_path / "pyproject.toml"
    assert registry._checkout_entries(other) is None
    other.write_text('[project]\nname = "someone-else"\n[project.entry-points."diffalign.rewards"]\na = "b:c"\n')
    assert registry._checkout_entries(other) is None


def test_a_third_party_plugin_is_listed_without_import_and_made_with_arguments(
    install: Install, images: Tensor
) -> None:
    install("bright-plugin", "bright", PLUGIN)
    assert "bright" in rewards.names()
    assert "bright_plugin_module" not in sys.modules
    assert torch.allclose(call(rewards.get("bright", factor=3.0), images), 3 * images.mean((1, 2, 3)))
    assert "bright_plugin_module" in sys.modules


def test_listing_survives_a_plugin_that_does_not_import(install: Install) -> None:
    install("broken-plugin", "broken", "raise RuntimeError('no such library')")
    assert {"broken", "shapes"} <= set(rewards.names())
    with pytest.raises(RuntimeError, match="no such library"):
        rewards.get("broken")


def test_a_listing_reads_the_class_without_making_it(install: Install) -> None:
    source = """
from diffalign.rewards import Reward

class Big(Reward):
    licence, weights, needs = "MIT", (("a/b", "model.safetensors"),), frozenset({"prompt"})
    def __init__(self):
        raise RuntimeError("loads the model")

def make() -> Big:
    return Big()
"""
    install("big-plugin", "big", source)
    by_name = {entry.name: registry.declaration(entry) for entry in registry.entries()}
    big = by_name["big"]
    assert (big.licence, big.weights, big.needs) == ("MIT", (("a/b", "model.safetensors"),), {"prompt"})
    assert by_name["shapes"] is by_name["shapes_strict"] and by_name["shapes"].needs == {"metadata"}
    assert (by_name["jpeg"].licence, by_name["jpeg"].weights) == ("", ())


def test_a_factory_that_says_nothing_gets_the_defaults(install: Install) -> None:
    install("acme-rewards", "bright", PLUGIN)
    (entry,) = [entry for entry in registry.entries() if entry.name == "bright"]
    assert registry.declaration(entry) is rewards.Reward


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("first-plugin", "bright", PLUGIN)
    install("second-plugin", "bright", PLUGIN)
    assert rewards.names().count("bright") == 1
    with pytest.raises(ValueError, match=r"first-plugin.* and second-plugin"):
        rewards.get("bright")


def test_a_plugin_cannot_take_the_name_of_a_built_in_silently(install: Install) -> None:
    install("greedy-plugin", "jpeg", PLUGIN)
    with pytest.raises(ValueError, match=r"diffalign .* and greedy-plugin"):
        rewards.get("jpeg")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean `shapes_strict`"):
        rewards.get("shape_strict")
    with pytest.raises(ValueError, match=r"unknown reward 'zzz'. Registered: .*jpeg"):
        rewards.get("zzz")


def test_the_first_argument_may_stand_behind_a_colon() -> None:
    assert rewards.get("jpeg:incompressibility", quality=80).name == "jpeg_incompressibility_q80"
    with pytest.raises(ValueError, match="given kind twice"):
        rewards.get("jpeg:incompressibility", kind="compressibility")
    with pytest.raises(ValueError, match="unknown reward .jpg.; did you mean .jpeg."):
        rewards.get("jpg:incompressibility")


def test_arguments_that_a_factory_does_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'jpeg' does not take .*qality.*quality"):
        rewards.get("jpeg", qality=3)


def test_a_factory_that_returns_no_reward_is_refused(install: Install) -> None:
    install("number-plugin", "number", "def make():\n    return 3\n")
    with pytest.raises(ValueError, match="not int"):
        rewards.get("number")


def test_a_reward_passes_through_as_it_is() -> None:
    reward = rewards.get("jpeg")
    assert rewards.get(reward) is reward
    with pytest.raises(ValueError, match="already made"):
        rewards.get(reward, quality=3)


def test_a_plain_function_is_wrapped(images: Tensor) -> None:
    reward = rewards.get(brightness)
    assert reward.name == "brightness" and reward.scope == "pointwise" and not reward.differentiable
    assert torch.equal(call(reward, images), images.mean((1, 2, 3)))


def test_keyword_arguments_of_a_function_are_passed_on(images: Tensor) -> None:
    def scaled(images: Tensor, prompts: Sequence[str], metadata: Sequence[Any], *, factor: float) -> Tensor:
        return factor * images.mean((1, 2, 3))

    assert torch.allclose(call(rewards.get(scaled, factor=2.0), images), 2 * images.mean((1, 2, 3)))
    with pytest.raises(ValueError, match="factor"):
        rewards.get(scaled)


def test_a_function_may_return_numbers_and_none(images: Tensor) -> None:
    scores = call(rewards.get(lambda images, prompts, metadata: [1, 0.5, None, 2]), images)
    assert scores.dtype == torch.float32
    assert scores[[0, 1, 3]].tolist() == [1.0, 0.5, 2.0] and scores[2].isnan()


@pytest.mark.parametrize("pack", [list, tuple, torch.tensor, np.array])
def test_details_behind_the_scores_are_left_out_as_flow_grpo_returns_them(images: Tensor, pack: Any) -> None:
    for details in ({}, {"words": ["a"] * 4}, None, [{}] * 4):
        reward = rewards.get(lambda images, prompts, metadata: (pack([1.0, 2.0, 3.0, 4.0]), details))  # noqa: B023
        assert call(reward, images).tolist() == [1, 2, 3, 4]
    assert call(rewards.get(lambda images, prompts, metadata: (1.0, 2.0)), images[:2]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"clip": [0.1] * 4, "avg": [0.2] * 4}, r"'<lambda>' returned a dict \(clip, avg\).*one function each"),
        (({"avg": [0.2] * 4}, {}), r"returned a dict \(avg\)"),
        (3.0, "returned float; valid"),
        ("good", "returned str; valid"),
        (["a", "b"], "returned list of str; valid"),
        (np.float32(1), "returned float32; valid"),
    ],
)
def test_a_function_that_returns_something_else_is_named(images: Tensor, returned: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(rewards.get(lambda images, prompts, metadata: returned), images)


def test_tensors_one_by_one_keep_their_gradient(images: Tensor) -> None:
    reward = rewards.get(lambda images, prompts, metadata: [image.mean() for image in images])
    scores = call(reward, images.requires_grad_())
    assert scores.shape == (4,) and scores.requires_grad


def test_what_a_function_declares_counts(images: Tensor) -> None:
    def blur(images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
        return images.mean((1, 2, 3))

    blur.differentiable, blur.range, blur.needs = True, (0.0, 2.0), ["prompt"]  # type: ignore[attr-defined]
    reward = rewards.get(blur)
    assert (reward.name, reward.scope, reward.differentiable) == ("blur", "pointwise", True)
    assert reward.range == (0.0, 2.0) and reward.needs == {"prompt"}
    blur.higher_is_better = False  # type: ignore[attr-defined]
    lower = rewards.get(blur)
    assert lower.name == "blur" and lower.differentiable and lower.range == (-2.0, 0.0)
    assert torch.equal(call(lower, images), -call(reward, images))


def test_an_object_that_declares_lower_is_better_is_negated_and_otherwise_itself(images: Tensor) -> None:
    class Distance(rewards.Reward):
        name, licence, higher_is_better = "distance", "MIT", False

        def __init__(self) -> None:
            self.device: Any = None

        def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
            return images.mean((1, 2, 3))

        def to(self, device: Any = None, dtype: Any = None) -> Distance:
            self.device = device
            return self

    made = Distance()
    reward = rewards.get(made)
    assert torch.equal(call(reward, images), -images.mean((1, 2, 3)))
    assert reward.to("meta") is reward and made.device == "meta"
    assert (reward.licence, reward.range, reward.higher_is_better) == ("MIT", None, True)
    assert rewards.get(reward) is reward, "not negated twice"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("range", (1.0, 0.0), r"range \(1.0, 0.0\); valid: \(low, high\)"),
        ("range", 3, "range 3; valid"),
        ("differentiable", "yes", "differentiable = 'yes'; valid: True, False"),
        ("higher_is_better", 0, "higher_is_better = 0; valid"),
        ("scope", "global", "scope 'global'"),
        ("needs", "prompt", r"needs .*; valid: a set of .*prompt"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(key: str, value: Any, message: str) -> None:
    def level(images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
        return images.mean((1, 2, 3))

    setattr(level, key, value)
    with pytest.raises(ValueError, match=message):
        rewards.get(level)


def test_a_callable_object_with_weights_is_moved(images: Tensor) -> None:
    class Mine:
        def __init__(self) -> None:
            self.weight = torch.ones(())

        def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
            return self.weight * images.mean((1, 2, 3))

        def to(self, device: Any, dtype: Any) -> None:
            self.weight = self.weight.to(dtype=dtype)

    mine = Mine()
    reward = rewards.get(mine).to(dtype=torch.float64)
    assert reward.name == "Mine" and mine.weight.dtype == torch.float64


@pytest.mark.parametrize("bad", [lambda images: 0, lambda: 0, lambda images, prompts, metadata, extra: 0])
def test_a_function_with_another_signature_is_refused_when_made(bad: Callable[..., int]) -> None:
    with pytest.raises(ValueError, match=r"cannot be called as .*\(images, prompts, metadata\)"):
        rewards.get(bad)


@pytest.mark.parametrize("thing", [3, None, ["jpeg"]])
def test_other_things_are_refused(thing: Any) -> None:
    with pytest.raises(ValueError, match="a reward is a name"):
        rewards.get(thing)


def test_a_reward_with_a_wrong_scope_is_refused() -> None:
    class Odd(rewards.Reward):
        name = "odd"
        scope = "global"

        def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
            return images.mean((1, 2, 3))

    with pytest.raises(ValueError, match="scope 'global'; valid: pointwise"):
        rewards.get(Odd())


def test_a_duck_typed_reward_lacking_attributes_is_told_which() -> None:
    class Half:
        name = "half"
        scope = "pointwise"

        def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
            return images.mean((1, 2, 3))

    with pytest.raises(ValueError, match="lacks differentiable, range, needs"):
        rewards.get(Half())


def test_a_judge_of_pairs_becomes_a_pairwise_reward() -> None:
    class Judge:
        name = "judge"

        def compare(self, a: Tensor, b: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
            return (a.mean((1, 2, 3)) > b.mean((1, 2, 3))).float()

    for source in (Judge, Judge()):
        reward = rewards.get(source)
        assert reward.name == "judge" and reward.scope == "pairwise"
