"""Scoring beside the rollout: each reward in a thread of its own, while the next images are sampled.

The same calls are made whether rewards run beside the rollout or after it, on the same images in the same batches, so
the scores are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.deadline import Lane
from diffalign.rewards.scoring import score


class Pending:
    """Scores that are being computed, by reward name."""

    def __init__(self, futures: Mapping[str, Future[Tensor]]) -> None:
        self._futures = futures

    def result(self) -> dict[str, Tensor]:
        """Waits; `(B,)` float32 by name, NaN = could not be scored. Raises what a reward raised."""
        return {name: future.result() for name, future in self._futures.items()}


class Scorer:
    """Submits images to rewards.

    Args:
        rewards: rewards by name.
        asynchronous: False makes every call at once, in the caller's thread.
    """

    def __init__(self, rewards: Mapping[str, Reward], *, asynchronous: bool = True) -> None:
        self._rewards = rewards
        self._lanes = {name: Lane(f"reward {name}") for name in rewards} if asynchronous else {}
        self._waiting: list[Future[Tensor]] = []

    def submit(
        self,
        names: Iterable[str],
        images: Tensor,
        prompts: Sequence[str],
        metadata: Sequence[Metadata],
        *,
        grad: bool = False,
    ) -> Pending:
        """Scores images by some of the rewards; returns at once.

        Images and records must not be changed until the result is there.

        Args:
            names: which rewards.
            images: `(B, 3, H, W)` in [0, 1].
            prompts: `B` prompts.
            metadata: `B` records.
            grad: keep the graph of the images; the call is then made at once, in the caller's thread. See
                `diffalign.rewards.score`.

        Raises:
            Exception: what a reward raised on images submitted earlier: an error of the wiring ends the run now, not
                after the rollout. What is still queued is dropped.
        """
        self._stop_at_errors()
        futures = {}
        for name in names:
            call = self._call(name, images, list(prompts), list(metadata), grad)
            futures[name] = self._lanes[name].submit(call) if self._lanes and not grad else _done(call)
        self._waiting.extend(futures.values())
        return Pending(futures)

    def _call(
        self, name: str, images: Tensor, prompts: list[str], metadata: list[Metadata], grad: bool
    ) -> Callable[[], Tensor]:
        def call() -> Tensor:
            # the current device is one per thread
            with torch.cuda.device(images.device) if images.is_cuda else nullcontext():
                return score({name: self._rewards[name]}, images, prompts, metadata, grad=grad)[name]

        return call

    def _stop_at_errors(self) -> None:
        broken = next((f for f in self._waiting if f.done() and not f.cancelled() and f.exception()), None)
        if broken is not None:
            self.drop()
            broken.result()
        self._waiting = [future for future in self._waiting if not future.done()]

    def drop(self) -> None:
        """Cancels calls that have not begun."""
        for future in self._waiting:
            future.cancel()
        self._waiting = []


def _done(call: Callable[[], Any]) -> Future[Any]:
    """A call made at once."""
    future: Future[Any] = Future()
    future.set_result(call())
    return future
