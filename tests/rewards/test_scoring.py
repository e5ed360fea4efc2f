from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.rewards import FunctionReward, ScoringFailure, count_failures, get, score


def run(function: Callable[..., Any], images: Tensor, **options: Any) -> Tensor:
    reward = FunctionReward(function, name="r", **options)
    return score({"r": reward}, images, ["p"] * len(images), [{} for _ in images])["r"]


def mean(images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
    return images.mean((1, 2, 3))


def test_several_rewards_stay_apart(images: Tensor) -> None:
    rewards = {"a": get(mean), "b": get(lambda images, prompts, metadata: [1.0, 2.0, 3.0, 4.0])}
    scores = score(rewards, images, ["p"] * 4, [{}] * 4)
    assert list(scores) == ["a", "b"]
    assert torch.equal(scores["a"], images.mean((1, 2, 3))) and scores["b"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_float_comes_back_as_float32(images: Tensor, dtype: torch.dtype) -> None:
    scores = run(mean, images.to(dtype))
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, images.mean((1, 2, 3)), atol=1e-2)


def test_infinities_become_nan_and_are_counted(images: Tensor) -> None:
    scores = run(lambda images, *_: torch.tensor([1.0, float("inf"), -float("inf"), float("nan")]), images)
    assert scores.isnan().tolist() == [False, True, True, True]
    assert count_failures({"r": scores, "s": scores[:1]}) == {"r": 3, "s": 0}


def test_an_image_that_is_not_finite_cannot_be_scored_and_is_not_shown(images: Tensor) -> None:
    images[1, 0, 0, 0], images[2, 1, 1, 1] = torch.nan, torch.inf
    kept = images.clone()

    def finite_only(images: Tensor, *_: Any) -> Tensor:
        if not images.isfinite().all():
            raise RuntimeError("shown a broken image")
        return images.mean((1, 2, 3))

    scores = run(finite_only, images)
    assert scores.isnan().tolist() == [False, True, True, False]
    assert torch.equal(scores[[0, 3]], images[[0, 3]].mean((1, 2, 3)))
    assert torch.equal(images.nan_to_num(), kept.nan_to_num())


def test_a_scoring_failure_is_nan_for_the_batch_and_logged(images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    def judge(*_: Any) -> Tensor:
        raise ScoringFailure("the judge does not answer")

    with caplog.at_level(logging.WARNING):
        scores = run(judge, images)
    assert scores.shape == (4,) and scores.isnan().all()
    assert "'r' could not score 4 images: the judge does not answer" in caplog.text


def test_any_other_exception_passes_with_the_name_of_the_reward(images: Tensor) -> None:
    def broken(*_: Any) -> Tensor:
        raise KeyError("missing")

    with pytest.raises(KeyError) as caught:
        run(broken, images)
    assert caught.value.__notes__ == ["raised while scoring with reward 'r'"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(4, 1), r"shape \(4, 1\) for 4 images; valid: \(4,\)"),
        (torch.zeros(3), r"shape \(3,\) for 4 images"),
        (torch.tensor(0.0), r"shape \(\) for 4"),
        (torch.zeros(4, dtype=torch.long), "int64; valid: floating point"),
        (torch.zeros(4, dtype=torch.bool), "bool; valid: floating point"),
    ],
)
def test_a_wrong_output_is_an_error(images: Tensor, returned: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(lambda *_: returned, images)


def test_in_place_changes_are_an_error(images: Tensor) -> None:
    def careless(images: Tensor, *_: Any) -> Tensor:
        return images.mul_(0.5).mean((1, 2, 3))

    with pytest.raises(ValueError, match="'r' changed the images in place"):
        run(careless, images)
    with pytest.raises(ValueError, match="in place"):
        run(careless, images.clone(), differentiable=True)


def test_records_are_handed_over_as_copies(images: Tensor) -> None:
    def greedy(images: Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> Tensor:
        metadata[0]["seen"] = True
        prompts.clear()
        return images.mean((1, 2, 3))

    prompts, metadata = ["p"] * 4, [{} for _ in range(4)]
    score({"a": get(greedy), "b": get(mean)}, images, prompts, metadata)
    assert prompts == ["p"] * 4 and metadata == [{}] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 2 - 1, "images are in .0, 1.*decoded latents"),
        (lambda x: (x * 255).to(torch.uint8), "floats in .0, 1., got .* torch.uint8"),
        (lambda x: x[0], "floats in"),
        (lambda x: x[:, :1], "floats in"),
    ],
)
def test_images_of_another_kind_are_refused(images: Tensor, change: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(mean, change(images))


def test_lists_of_another_length_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="4 images, 3 prompts and 4 metadata"):
        score({"r": get(mean)}, images, ["p"] * 3, [{}] * 4)


def test_a_promised_gradient_flows_and_is_exact(images: Tensor) -> None:
    images.requires_grad_()
    run(mean, images, differentiable=True).sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, torch.full_like(images, 1 / (3 * 8 * 8)))


def test_without_the_promise_no_gradient_flows(images: Tensor) -> None:
    weight = torch.ones((), requires_grad=True)
    scores = run(lambda images, *_: weight * images.mean((1, 2, 3)), images.requires_grad_())
    assert not scores.requires_grad


def test_without_the_promise_a_reward_may_leave_torch(images: Tensor) -> None:
    scores = run(lambda images, *_: images.numpy().mean((1, 2, 3)), images.requires_grad_())
    assert torch.allclose(scores, images.mean((1, 2, 3)))


def test_a_promise_that_is_not_kept_is_an_error(images: Tensor) -> None:
    with pytest.raises(ValueError, match="declares differentiable=True"):
        run(lambda images, *_: images.detach().mean((1, 2, 3)), images.requires_grad_(), differentiable=True)


def test_a_failed_sample_sends_no_gradient_and_spoils_no_other(images: Tensor) -> None:
    images.requires_grad_()
    scores = run(
        lambda x, *_: x.mean((1, 2, 3)).log() * torch.tensor([1.0, torch.nan, 1, 1]), images, differentiable=True
    )
    scores.nansum().backward()
    assert images.grad is not None
    assert images.grad[[0, 2, 3]].isfinite().all() and images.grad[0].abs().sum() > 0


def test_scoring_works_in_inference_mode() -> None:
    with torch.inference_mode():
        assert run(mean, torch.full((2, 3, 4, 4), 0.5)).tolist() == [0.5, 0.5]
