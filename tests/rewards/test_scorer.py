"""Scoring beside the caller: same calls, same scores; errors at the next hand-over; nothing runs after a drop."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import torch

from diffalign.rewards import Reward, get
from diffalign.rewards.scorer import Scorer

PROMPTS, RECORDS = ["a", "b", "c", "d"], [{"tag": "x"}] * 4


class Recording(Reward):
    """Mean brightness; waits for a gate, notes thread, order and gradient mode."""

    differentiable = True  # else it would be called without gradient in any case

    def __init__(self, name="recording", gate=None):
        self.name, self.gate, self.seen = name, gate, []

    def __call__(self, images, prompts, metadata):
        if self.gate is not None:
            assert self.gate.wait(20)
        self.seen.append((threading.current_thread().name, len(images), torch.is_grad_enabled()))
        return images.mean((1, 2, 3))


def test_the_caller_goes_on_while_rewards_score_in_threads_of_their_own(images):
    gate = threading.Event()
    rewards = {name: Recording(name, gate) for name in ("a", "b")}
    scorer = Scorer(rewards)
    first = scorer.submit(["a", "b"], images, PROMPTS, RECORDS)
    second = scorer.submit(["a"], images[:2], PROMPTS[:2], RECORDS[:2])
    assert not rewards["a"].seen
    gate.set()
    assert set(first.result()) == {"a", "b"} and torch.equal(second.result()["a"], images[:2].mean((1, 2, 3)))
    assert rewards["a"].seen == [("reward a", 4, False), ("reward a", 2, False)], "one thread, in order, no gradient"
    assert rewards["b"].seen == [("reward b", 4, False)]


def test_one_slow_reward_does_not_hold_up_another(images):
    gate = threading.Event()
    scorer = Scorer({"slow": Recording("slow", gate), "fast": Recording("fast")})
    scorer.submit(["slow"], images, PROMPTS, RECORDS)
    assert scorer.submit(["fast"], images, PROMPTS, RECORDS).result()["fast"].isfinite().all()
    gate.set()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_scores_are_the_same_bit_for_bit_either_way(images, asynchronous):
    weights = torch.randn(192, 7, generator=torch.Generator().manual_seed(1))

    def product(images, prompts, metadata):
        return (images.flatten(1) @ weights).tanh().sum(1)

    scorer = Scorer({"product": get(product), "jpeg": get("jpeg")}, asynchronous=asynchronous)
    parts = [scorer.submit(["product", "jpeg"], images[i : i + 2], PROMPTS[:2], RECORDS[:2]) for i in (0, 2)]
    found = torch.cat([part.result()["product"] for part in parts])
    assert torch.equal(found, torch.cat([product(images[i : i + 2], [], []) for i in (0, 2)]))


def test_in_line_a_reward_runs_in_the_callers_thread_without_gradient(images):
    reward = Recording()
    Scorer({"r": reward}, asynchronous=False).submit(["r"], images, PROMPTS, RECORDS)
    assert reward.seen == [(threading.current_thread().name, 4, False)]


def test_a_mistake_in_the_wiring_is_raised_at_the_next_hand_over_and_drops_the_rest(images):
    gate, other = threading.Event(), Recording("other", threading.Event())

    def wrong(images, prompts, metadata):
        gate.wait(20)
        return metadata[0]["there is no such key"]

    scorer = Scorer({"wrong": get(wrong), "other": other})
    scorer.submit(["wrong", "other"], images, PROMPTS, RECORDS)
    dropped = scorer.submit(["wrong", "other"], images, PROMPTS, RECORDS)
    gate.set()
    deadline = time.monotonic() + 20
    with pytest.raises(KeyError, match="no such key") as caught:
        while time.monotonic() < deadline:
            scorer.submit([], images, PROMPTS, RECORDS)
            time.sleep(0.01)
    assert any("reward 'wrong'" in note for note in caught.value.__notes__)
    other.gate.set()
    with pytest.raises((KeyError, BaseException)):
        dropped.result()
    assert len(other.seen) <= 1


def test_a_mistake_is_raised_by_the_result_too(images):
    scorer = Scorer({"r": get(lambda images, prompts, metadata: torch.zeros(1))})
    with pytest.raises(ValueError, match="returned shape"):
        scorer.submit(["r"], images, PROMPTS, RECORDS).result()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_with_grad_the_graph_of_the_images_is_kept(images, asynchronous):
    reward = Recording()
    leaf = images.clone().requires_grad_()
    scores = Scorer({"r": reward}, asynchronous=asynchronous).submit(["r"], leaf, PROMPTS, RECORDS, grad=True).result()
    assert reward.seen == [(threading.current_thread().name, 4, True)]
    scores["r"].sum().backward()
    assert torch.allclose(leaf.grad, torch.full_like(images, 1 / images[0].numel()))


def test_images_are_let_go_of_once_they_are_scored(images):
    scorer = Scorer({"r": Recording()})
    mine = images.clone()
    gone = weakref.ref(mine)
    scorer.submit(["r"], mine, PROMPTS, RECORDS).result()
    del mine
    deadline = time.monotonic() + 5
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
