"""Batches over all clients: whatever waits when a device is free, and goes together, is scored in one call.

No request waits for company. While a device works, others queue up; so batches grow with the load. Images of rewards
that score each image alone are merged across requests when their sizes agree; the images of one request to a reward
that compares images are one call.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from diffalign.rewards.base import ScoringFailure
from diffalign.rewards.deadline import Late
from diffalign.rewards.protocol import Answer, Request
from diffalign.server.metrics import Metrics

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """What scores on one device; `diffalign.rewards.process.ProcessWorker` is one."""

    @property
    def alive(self) -> bool:
        """Whether its process runs."""

    def start(self) -> Any:
        """Starts its process."""

    def score(
        self,
        spec: str,
        images: Tensor,
        prompts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]],
        timeout: float | None = None,
    ) -> Tensor:
        """Scores `(B,)`; see `ProcessWorker.score`."""


class Busy(Exception):
    """More images wait than the server holds."""


class Outcome(NamedTuple):
    """A score, or NaN and why."""

    score: float
    error: str = ""


class Piece(NamedTuple):
    """What is scored in one call at least: one image, or all of a request to a reward that compares images."""

    reward: str
    key: object
    images: Tensor
    prompts: list[str]
    metadata: list[dict[str, Any]]
    sound: list[bool]
    future: asyncio.Future[list[Outcome]]


class Dispatcher:
    """Shares out images among workers.

    Args:
        workers: One per device.
        scopes: Scope of each reward by name.
        specs: What the workers call each reward, by name.
        metrics: Where batches are counted.
        batch_size: Most images in a call.
        queue_size: Most images that wait.
        timeout: Seconds that a call may take.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        scopes: Mapping[str, str],
        specs: Mapping[str, str],
        metrics: Metrics,
        *,
        batch_size: int = 32,
        queue_size: int = 4096,
        timeout: float = 300.0,
    ) -> None:
        self.workers = list(workers)
        self._scopes, self._specs, self._metrics = dict(scopes), dict(specs), metrics
        self._batch_size, self._queue_size, self._timeout = batch_size, queue_size, timeout
        self._queue: deque[Piece] = deque()
        self._arrived = asyncio.Condition()
        self._threads = ThreadPoolExecutor(len(self.workers), "device")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts to hand out work; call it on the event loop."""
        self._tasks = [asyncio.create_task(self._drive(worker)) for worker in self.workers]

    async def stop(self) -> None:
        """Ends; what still waits is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Images in the queue, but those of clients that have gone."""
        return sum(len(piece.images) for piece in self._queue if not piece.future.done())

    async def score(self, request: Request) -> Answer:
        """Scores of a request, in its order.

        Raises:
            Busy: If too many images wait.
            ValueError: If the reward compares images and they differ in size.
        """
        if self.waiting + len(request.images) > self._queue_size:
            raise Busy(f"{self.waiting} images wait already")
        pieces = self._pieces(request)
        async with self._arrived:
            self._queue.extend(pieces)
            self._arrived.notify(len(pieces))
        try:
            outcomes = [outcome for piece in pieces for outcome in await piece.future]
        finally:  # a client that has gone takes its images along
            for piece in pieces:
                piece.future.cancel()
        errors = {position: outcome.error for position, outcome in enumerate(outcomes) if outcome.error}
        return Answer([outcome.score for outcome in outcomes], errors)

    def _pieces(self, request: Request) -> list[Piece]:
        future = asyncio.get_running_loop().create_future
        if self._scopes[request.reward] != "pointwise":
            if len({image.shape for image in request.images}) > 1:
                raise ValueError(f"{request.reward} compares images, which therefore have to be of one size")
            images = torch.stack(request.images)
            return [Piece(request.reward, object(), images, *request[3:], future())]
        return [
            Piece(request.reward, (request.reward, image.shape), image[None], [prompt], [record], [sound], future())
            for image, prompt, record, sound in zip(*request[2:], strict=True)
        ]

    async def _next(self) -> list[Piece]:
        """The oldest piece and those that go with it."""
        async with self._arrived:
            while True:
                self._queue = deque(piece for piece in self._queue if not piece.future.done())
                if self._queue:
                    break
                await self._arrived.wait()
            key = self._queue[0].key
            taken, rest = list[Piece](), deque[Piece]()
            for piece in self._queue:
                fits = piece.key == key and len(taken) < self._batch_size
                (taken if fits else rest).append(piece)
            self._queue = rest
            return taken

    async def _drive(self, worker: Worker) -> None:
        """Keeps one worker busy."""
        loop = asyncio.get_running_loop()
        while True:
            pieces = await self._next()
            start = time.perf_counter()
            found = await loop.run_in_executor(self._threads, self._call, worker, pieces)
            images = sum(len(piece.images) for piece in pieces)
            self._metrics.batch(pieces[0].reward, images, time.perf_counter() - start)
            for piece, outcomes in zip(pieces, found, strict=True):
                if not piece.future.done():
                    piece.future.set_result(outcomes)

    def _call(self, worker: Worker, pieces: Sequence[Piece]) -> list[list[Outcome]]:
        """Outcomes per piece; when a call fails, each piece is tried alone, so that none pays for another one."""
        try:
            scores = self._scores(worker, pieces)
        except Late as error:
            self._revive(worker)
            return [_failed(piece, error) for piece in pieces]
        except Exception as error:
            if len(pieces) > 1:
                return [outcomes for piece in pieces for outcomes in self._call(worker, [piece])]
            return [_failed(pieces[0], error)]
        each = iter(scores.tolist())
        return [[_outcome(next(each), sound) for sound in piece.sound] for piece in pieces]

    def _revive(self, worker: Worker) -> None:
        """Starts the process of a worker again, so that the next call does not wait for it."""
        try:
            if not worker.alive:
                worker.start()
        except (Late, ValueError) as error:  # the next call tries again
            logger.error("a device does not start again: %s", error)

    def _scores(self, worker: Worker, pieces: Sequence[Piece]) -> Tensor:
        images = torch.cat([piece.images for piece in pieces])
        scores = worker.score(
            self._specs[pieces[0].reward],
            images,
            [prompt for piece in pieces for prompt in piece.prompts],
            [record for piece in pieces for record in piece.metadata],
            self._timeout,
        )
        if scores.shape != (len(images),):
            raise ScoringFailure(f"the reward returned shape {tuple(scores.shape)} for {len(images)} images")
        return scores


def _failed(piece: Piece, error: Exception) -> list[Outcome]:
    logger.warning("%s could not score %d images: %s", piece.reward, len(piece.images), error)
    return [Outcome(math.nan, str(error) or type(error).__name__)] * len(piece.images)


def _outcome(score: float, sound: bool) -> Outcome:
    if not sound:
        return Outcome(math.nan, "the image is not finite")
    return Outcome(score) if math.isfinite(score) else Outcome(math.nan, "the reward gave no finite score")
