"""Scoring in a separate process, for Python code that would block the threads of the run; killed when late."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward, ScoringFailure
from diffalign.rewards.deadline import Late
from diffalign.rewards.outputs import as_scores
from diffalign.rewards.user_code import place

START_SECONDS = 120.0
"""Time that a process may take to start and to make a reward."""


class ProcessWorker:
    """Scores in a process, which makes its own copies of the rewards from their specifications.

    The process starts with the first call, or `start`, and again after it was killed or died.

    Args:
        specs: registered name or `file.py:function` -> keyword arguments of the reward.
        device: of the weights and of the scoring.
        threads: of torch in the process; None = as many as torch takes.
    """

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], device: str = "cpu", *, threads: int | None = 1) -> None:
        self._specs, self._device = {spec: dict(arguments) for spec, arguments in specs.items()}, device
        self._threads = threads
        self._process: Any = None
        self._pipe: Connection | None = None
        self._shared = torch.empty(0)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    def score(
        self,
        spec: str,
        images: Tensor,
        prompts: Sequence[str],
        metadata: Sequence[Metadata],
        timeout: float | None = None,
    ) -> Tensor:
        """Scores `(B,)` on the CPU of images `(B, 3, H, W)` by one of the rewards.

        Raises:
            Late: no answer within `timeout` seconds, or the process died.
            ScoringFailure: the reward said so.
            ValueError: any other exception of the reward, as text.
        """
        if self._pipe is None:
            self.start()
        pipe = self._pipe
        assert pipe is not None
        try:
            pipe.send((spec, *self._lay(images.detach()), list(prompts), [dict(record) for record in metadata]))
            answer = _received(pipe, timeout)
        except (Late, EOFError, OSError) as error:
            code = self.close()
            raise Late(str(error) if isinstance(error, Late) else f"its process died with status {code}") from error
        return torch.from_numpy(answer)

    def close(self) -> int | None:
        """Ends the process; returns its status."""
        process, self._process, self._pipe = self._process, None, None
        self._shared = torch.empty(0)
        if process is None:
            return None
        process.join(0.2)  # one that died by itself has a status of its own
        process.kill()
        process.join()
        return int(process.exitcode)

    def _lay(self, images: Tensor) -> tuple[Tensor | None, torch.Size]:
        """Puts images where the process reads them: into memory that both share, which is sent once, when it is new."""
        fresh = images.numel() > self._shared.numel()
        if fresh:
            self._shared = torch.empty(images.numel()).share_memory_()
        self._shared[: images.numel()].view(images.shape).copy_(images)
        return self._shared if fresh else None, images.shape

    def start(self) -> dict[str, dict[str, Any]]:
        """Starts the process; returns what each reward says of itself, by specification.

        Raises:
            Late: it did not start.
            ValueError: a reward could not be made.
        """
        context = get_context("spawn")
        near, far = context.Pipe()
        self._process = context.Process(target=serve, args=(far, self._specs, self._device, self._threads), daemon=True)
        self._process.start()
        far.close()
        try:
            described: dict[str, dict[str, Any]] = _received(near, START_SECONDS * len(self._specs))
        except (Late, EOFError) as error:
            code = self.close()
            raise Late(f"its process did not start ({error or f'status {code}'})") from error
        except ValueError:
            self.close()
            raise
        self._pipe = near
        return described


def _received(pipe: Connection, timeout: float | None) -> Any:
    """The next answer; raises the exception that it describes."""
    if not pipe.poll(timeout):
        raise Late(f"no answer within {timeout:g} s")
    kind, answer = pipe.recv()
    if kind == "failure":
        raise ScoringFailure(answer)
    if kind == "error":
        raise ValueError(answer)
    return answer


def describe(spec: str, arguments: Mapping[str, Any], reward: Reward) -> dict[str, Any]:
    """Attributes of a reward, JSON-ready; `version` changes whenever its scores may."""
    from diffalign.rewards.identity import identity

    return {
        "name": reward.name,
        "spec": spec,
        "scope": reward.scope,
        "range": reward.range,
        "needs": sorted(reward.needs),
        "licence": getattr(reward, "licence", ""),
        "version": hashlib.sha256((identity(spec, arguments, reward) or "").encode()).hexdigest(),
    }


def _make(specs: Mapping[str, Mapping[str, Any]], device: str) -> dict[str, Reward]:
    """The rewards on their device, by specification."""
    from diffalign.rewards.guard import moved
    from diffalign.rewards.registry import get

    made = {spec: get(spec, **arguments) for spec, arguments in specs.items()}
    for reward in made.values():
        moved(reward, device)
    return made


def serve(pipe: Connection, specs: Mapping[str, Mapping[str, Any]], device: str, threads: int | None) -> None:
    """Main function of the process: makes the rewards, then scores until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the run handles it
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        rewards = _make(specs, device)
        pipe.send(("ready", {spec: describe(spec, specs[spec], reward) for spec, reward in rewards.items()}))
    except Exception as error:  # the run raises it, in its own process
        pipe.send(("error", _told(error)))
        return
    shared = torch.empty(0)
    while True:
        try:
            spec, fresh, shape, prompts, metadata = pipe.recv()
        except EOFError:
            return
        shared = shared if fresh is None else fresh
        images = shared[: shape.numel()].view(shape).to(device, copy=True)  # a reward may keep what it is given
        try:
            with torch.no_grad():
                scores = as_scores(rewards[spec].name, rewards[spec](images, prompts, metadata), "cpu")
            pipe.send(("scores", scores.float().cpu().numpy()))
        except ScoringFailure as failure:
            pipe.send(("failure", str(failure)))
        except Exception as error:  # as above
            pipe.send(("error", _told(error)))


def _told(error: Exception) -> str:
    """An exception as text, with its place in the user's code."""
    return f"{type(error).__name__}: {error}{place(error.__traceback__)}"
