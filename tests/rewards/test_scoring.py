from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.rewards import FunctionReward, ScoringFailure, count_failures, get, score


def run(function: Callable[..., Any], images: Tensor, *, grad: bool = False, **options: Any) -> Tensor:
    reward = FunctionReward(function, name="r", **options)
    return score({"r": reward}, images, ["p"] * len(images), [{} for _ in images], grad=grad)["r"]


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


def test_any_other_exception_passes_with_the_name_of_the_reward_and_the_line(images: Tensor) -> None:
    def broken(*_: Any) -> Tensor:
        raise KeyError("missing")

    with pytest.raises(KeyError) as caught:
        run(broken, images)
    line = broken.__code__.co_firstlineno + 1
    (note,) = caught.value.__notes__
    assert note.startswith("KeyError in reward 'r' (") and note.endswith(f"test_scoring.py:{line}, in broken)")


def test_an_error_inside_a_library_is_placed_where_the_users_code_called_it(images: Tensor) -> None:
    def broken(images: Tensor, *_: Any) -> Any:
        return json.loads("{")

    with pytest.raises(ValueError, match="Expecting") as caught:
        run(broken, images)
    line = broken.__code__.co_firstlineno + 1
    assert caught.value.__notes__[0].endswith(f"test_scoring.py:{line}, in broken)")


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


def test_records_are_handed_over_as_copies_nested_containers_too(images: Tensor) -> None:
    def greedy(images: Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> list[float]:
        for record in metadata:
            record["seen"] = True
            record["include"][0]["count"] += 1
            record["include"].append({})
        prompts.clear()
        return [float(record["include"][0]["count"]) for record in metadata]

    record: dict[str, Any] = {"include": [{"class": "dog", "count": 1}], "tags": ("a", {"b"})}
    prompts, metadata = ["p"] * 4, [record] * 4  # the samples of a prompt share their record
    for _ in range(2):
        scores = score({"a": get(greedy), "b": get(mean)}, images, prompts, metadata)
        assert scores["a"].tolist() == [2, 2, 2, 2]
    assert prompts == ["p"] * 4 and record == {"include": [{"class": "dog", "count": 1}], "tags": ("a", {"b"})}


def test_tensors_in_records_are_shared_not_copied(images: Tensor) -> None:
    seen: list[Tensor] = []
    reward = get(lambda images, prompts, metadata: seen.extend(r["photos"][0] for r in metadata) or [0.0] * 4)
    photo = torch.zeros(3, 4, 4)
    score({"r": reward}, images, ["p"] * 4, [{"photos": [photo]}] * 4)
    assert all(each is photo for each in seen) and len(seen) == 4


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
    run(mean, images, differentiable=True, grad=True).sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, torch.full_like(images, 1 / (3 * 8 * 8)))


def test_no_graph_is_kept_unless_it_is_asked_for(images: Tensor) -> None:
    weight = torch.ones((), requires_grad=True)
    for differentiable in (True, False):
        scores = run(
            lambda images, *_: weight * images.mean((1, 2, 3)), images.requires_grad_(), differentiable=differentiable
        )
        assert not scores.requires_grad


def test_a_gradient_is_refused_where_it_could_not_flow(images: Tensor) -> None:
    leaf = images.clone().requires_grad_()
    with pytest.raises(ValueError, match=r"'r' has no gradient.*ReFL, DRaFT.*GRPO.*eval_rewards"):
        run(mean, leaf, grad=True)
    with pytest.raises(ValueError, match="these are detached"):
        run(mean, leaf.detach(), differentiable=True, grad=True)
    with pytest.raises(ValueError, match="8-bit images carry no gradient"):
        run(mean, (images * 255).byte(), differentiable=True, grad=True)
    with pytest.raises(ValueError, match="no graph would be kept"), torch.no_grad():
        run(mean, leaf, differentiable=True, grad=True)


def test_a_judge_without_an_answer_leaves_the_graph_whole(images: Tensor) -> None:
    def judge(*_: Any) -> Tensor:
        raise ScoringFailure("busy")

    leaf = images.clone().requires_grad_()
    rewards = {n: FunctionReward(f, name=n, differentiable=True) for n, f in (("judge", judge), ("mean", mean))}
    scores = score(rewards, leaf, ["p"] * 4, [{}] * 4, grad=True)
    assert scores["judge"].isnan().all() and scores["judge"].requires_grad
    torch.stack([*scores.values()]).nansum().backward()
    assert torch.allclose(leaf.grad, torch.full_like(images, 1 / (3 * 8 * 8)))  # type: ignore[arg-type]


def test_without_a_graph_a_reward_may_leave_torch(images: Tensor) -> None:
    scores = run(lambda images, *_: images.numpy().mean((1, 2, 3)), images.requires_grad_())
    assert torch.allclose(scores, images.mean((1, 2, 3)))


def test_a_promise_that_is_not_kept_is_an_error(images: Tensor) -> None:
    with pytest.raises(ValueError, match="declares differentiable=True"):
        run(lambda images, *_: images.detach().mean((1, 2, 3)), images.requires_grad_(), differentiable=True, grad=True)


def test_a_failed_sample_sends_no_gradient_and_spoils_no_other(images: Tensor) -> None:
    images.requires_grad_()
    scores = run(
        lambda x, *_: x.mean((1, 2, 3)).log() * torch.tensor([1.0, torch.nan, 1, 1]),
        images,
        differentiable=True,
        grad=True,
    )
    scores.nansum().backward()
    assert images.grad is not None
    assert images.grad[[0, 2, 3]].isfinite().all() and images.grad[0].abs().sum() > 0


def test_scoring_works_in_inference_mode() -> None:
    with torch.inference_mode():
        assert run(mean, torch.full((2, 3, 4, 4), 0.5)).tolist() == [0.5, 0.5]
