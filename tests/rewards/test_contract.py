"""The contract check sees each way of breaking the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.rewards import FunctionReward, check_contract


def check(function: Callable[..., Any], images: Tensor, **options: Any) -> Tensor:
    return check_contract(FunctionReward(function, name="r", **options), images, ["p"] * 4, [{} for _ in range(4)])


def level(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def test_a_good_reward_passes_with_its_scores(images: Tensor) -> None:
    scores = check(lambda images, *_: level(images), images, differentiable=True, range=(0.0, 1.0))
    assert torch.equal(scores, level(images))


def test_scores_that_depend_on_neighbours(images: Tensor) -> None:
    with pytest.raises(ValueError, match="moves by .* with its neighbours"):
        check(lambda images, *_: level(images) - level(images).mean(), images)


def test_scopes_other_than_pointwise_may_depend_on_them(images: Tensor) -> None:
    check(lambda images, *_: level(images) - level(images).mean(), images, scope="group")
    with pytest.raises(ValueError, match="could not score"):
        check(lambda images, *_: level(images) * torch.nan, images, scope="group")


def test_scores_that_cannot_be_repeated(images: Tensor) -> None:
    with pytest.raises(ValueError, match="differently the second time"):
        check(lambda images, *_: torch.rand(len(images)), images)


def test_scores_outside_the_range(images: Tensor) -> None:
    with pytest.raises(ValueError, match="left its range"):
        check(lambda images, *_: 2 + level(images), images, range=(0.0, 1.0))


def test_a_gradient_that_is_zero(images: Tensor) -> None:
    with pytest.raises(ValueError, match="zero or not finite"):
        check(lambda images, *_: 0 * level(images), images, differentiable=True)


def test_a_gradient_that_is_not_finite(images: Tensor) -> None:
    with pytest.raises(ValueError, match="zero or not finite"):
        check(lambda images, *_: (level(images) - level(images).detach()).abs().sqrt(), images, differentiable=True)


def test_inputs_changed_behind_the_version_counter(images: Tensor) -> None:
    def sneaky(images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
        images.numpy()[0] = 0.0
        return level(images)

    with pytest.raises(ValueError, match="changed its inputs"):
        check(sneaky, images)
