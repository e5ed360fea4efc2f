"""Batches over all clients: merged where that changes nothing, apart where it would, and no client pays for another."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.rewards.protocol import Answer
from diffalign.server.dispatch import Busy, Dispatcher
from tests.server.conftest import Device, device, make_dispatcher, request


def images(count: int, size: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def drive(body: Callable[[Dispatcher], Awaitable[Any]], *devices: Device, **options: Any) -> Any:
    """Runs a coroutine beside a dispatcher."""

    async def run() -> Any:
        dispatcher = make_dispatcher(devices, **options)
        dispatcher.start()
        try:
            return await asyncio.wait_for(body(dispatcher), 20)
        finally:
            await dispatcher.stop()

    return asyncio.run(run())


async def behind(dispatcher: Dispatcher, first: Device, *requests: Any) -> list[Answer | BaseException]:
    """Answers of requests that queue up behind one that keeps the device busy."""
    first.free.clear()
    busy = asyncio.create_task(dispatcher.score(request(images(1))))
    await asyncio.to_thread(first.entered.wait, 10)
    rest = [asyncio.create_task(dispatcher.score(each)) for each in requests]
    await asyncio.sleep(0.05)
    first.free.set()
    await busy
    return await asyncio.gather(*rest, return_exceptions=True)


def test_what_waits_is_scored_in_one_call_and_everyone_gets_his_own() -> None:
    one, batches = device(), [images(2, seed=seed) for seed in range(5)]
    answers = drive(lambda d: behind(d, one, *map(request, batches)), one, batch_size=8)
    assert one.calls == [("b.py:bright", 1), ("b.py:bright", 8), ("b.py:bright", 2)]
    for answer, given in zip(answers, batches, strict=True):
        assert torch.allclose(torch.tensor(answer.scores), given.mean((1, 2, 3))) and not answer.errors


def test_other_sizes_and_other_rewards_are_other_calls_and_the_oldest_goes_first() -> None:
    one = device()
    asked = [request(images(1)), request(images(1, 6)), request(images(2), "spread"), request(images(1))]
    drive(lambda d: behind(d, one, *asked), one)
    assert one.calls[1:] == [("b.py:bright", 2), ("b.py:bright", 1), ("spread", 2)]


def test_groups_are_never_merged_nor_cut() -> None:
    one, batches = device(), [images(5, seed=seed) for seed in range(2)]
    answers = drive(lambda d: behind(d, one, *(request(b, "spread") for b in batches)), one, batch_size=3)
    assert one.calls[1:] == [("spread", 5), ("spread", 5)]
    for answer, given in zip(answers, batches, strict=True):
        assert torch.allclose(torch.tensor(answer.scores), (given - given.mean(0)).abs().mean((1, 2, 3)))


def test_a_group_of_several_sizes_is_refused() -> None:
    mixed = request(images(1), "spread")._replace(
        images=[images(1)[0], images(1, 5)[0]], prompts=["p"] * 2, sound=[True] * 2
    )
    with pytest.raises(ValueError, match="one size"):
        drive(lambda d: d.score(mixed), device())


def test_a_failure_is_that_of_its_image_alone() -> None:
    one = device()
    wrong, fine = request(images(2), prompts=["p", "wrong"]), request(images(2, seed=1))
    first, second = drive(lambda d: behind(d, one, wrong, fine), one)
    assert [math.isnan(score) for score in first.scores] == [False, True] and first.errors == {1: "KeyError: 'tag'"}
    assert torch.allclose(torch.tensor(second.scores), images(2, seed=1).mean((1, 2, 3))) and not second.errors


def test_a_broken_image_and_a_score_that_is_none_are_named() -> None:
    asked = request(images(3), prompts=["p", "p", "nan"])._replace(sound=[True, False, True])
    answer = drive(lambda d: d.score(asked), device())
    assert math.isfinite(answer.scores[0]) and math.isnan(answer.scores[1]) and math.isnan(answer.scores[2])
    assert answer.errors == {1: "the image is not finite", 2: "the reward gave no finite score"}


def test_a_reward_of_another_shape_scores_nothing() -> None:
    one = device()
    one.functions["b.py:bright"] = lambda images, prompts, metadata: torch.zeros(len(images), 1)
    answer = drive(lambda d: d.score(request(images(2))), one)
    assert all(map(math.isnan, answer.scores)) and "shape (1, 1)" in answer.errors[0]


def test_a_process_that_dies_takes_its_call_along_and_starts_again() -> None:
    one = device()

    async def twice(dispatcher: Dispatcher) -> list[Answer]:
        return [await dispatcher.score(request(images(2), prompts=[p, "p"])) for p in ("die", "p")]

    dead, alive = drive(twice, one)
    assert all(map(math.isnan, dead.scores)) and "died with status 7" in dead.errors[0]
    assert one.calls == [("b.py:bright", 2)] * 2 and one.starts == 1, "the call is not repeated image by image"
    assert torch.allclose(torch.tensor(alive.scores), images(2).mean((1, 2, 3)))


def test_devices_share_the_work() -> None:
    one, two = device(), device()
    one.free.clear()

    async def both(dispatcher: Dispatcher) -> list[Answer]:
        asked = [asyncio.create_task(dispatcher.score(request(images(1, seed=seed)))) for seed in range(6)]
        while len(two.calls) == 0 or dispatcher.waiting:  # the other one does all that is left
            await asyncio.sleep(0.01)
        one.free.set()
        return await asyncio.gather(*asked)

    answers = drive(both, one, two, batch_size=1)
    expected = [float(images(1, seed=seed).mean()) for seed in range(6)]
    assert [answer.scores[0] for answer in answers] == pytest.approx(expected)
    assert len(one.calls) == 1 and len(two.calls) == 5


def test_more_than_the_queue_holds_is_refused_at_once() -> None:
    one = device()
    answers = drive(lambda d: behind(d, one, request(images(3)), request(images(2))), one, queue_size=4)
    assert isinstance(answers[0], Answer) and isinstance(answers[1], Busy)


def test_images_of_a_client_that_has_gone_are_not_scored() -> None:
    one = device()

    async def leave(dispatcher: Dispatcher) -> None:
        one.free.clear()
        stays = asyncio.create_task(dispatcher.score(request(images(1))))
        await asyncio.to_thread(one.entered.wait, 10)
        goes = asyncio.create_task(dispatcher.score(request(images(3))))
        await asyncio.sleep(0.05)
        goes.cancel()
        await asyncio.sleep(0.05)
        one.free.set()
        await stays
        await dispatcher.score(request(images(2)))

    drive(leave, one)
    assert one.calls == [("b.py:bright", 1), ("b.py:bright", 2)]
