"""Scoring in a process of its own, for Python code that would hold up the threads of the run; killed when late."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, ScoringFailure
from diffalign.rewards.deadline import Late
from diffalign.rewards.outputs import as_scores
from diffalign.rewards.user_code import place

START_SECONDS = 120.0
"""Time that a process may take to start and to make its reward."""


class ProcessWorker:
    """Asks a process, which makes the reward anew from its specification.

    The process starts with the first call, and again after it was killed or died.

    Args:
        spec: registered name or `file.py:function`.
        arguments: keyword arguments of the reward.
    """

    def __init__(self, spec: str, arguments: Mapping[str, Any]) -> None:
        self._spec, self._arguments = spec, dict(arguments)
        self._process: Any = None
        self._pipe: Connection | None = None

    def score(
        self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata], timeout: float | None = None
    ) -> Tensor:
        """Scores `(B,)` on the CPU of images `(B, 3, H, W)`.

        Raises:
            Late: no answer within `timeout` seconds, or the process died.
            ScoringFailure: the reward said so.
            ValueError: any other exception of the reward, as text.
        """
        pipe = self._pipe or self._start()
        try:
            pipe.send((images.detach().float().cpu().numpy(), list(prompts), [dict(record) for record in metadata]))
            answer = _received(pipe, timeout)
        except (Late, EOFError, OSError) as error:
            code = self.close()
            raise Late(str(error) if isinstance(error, Late) else f"its process died with status {code}") from error
        return torch.from_numpy(answer)

    def close(self) -> int | None:
        """Ends the process; returns its status."""
        process, self._process, self._pipe = self._process, None, None
        if process is None:
            return None
        process.join(0.2)  # one that died by itself has a status of its own
        process.kill()
        process.join()
        return int(process.exitcode)

    def _start(self) -> Connection:
        context = get_context("spawn")
        near, far = context.Pipe()
        self._process = context.Process(target=serve, args=(far, self._spec, self._arguments), daemon=True)
        self._process.start()
        far.close()
        try:
            _received(near, START_SECONDS)
        except (Late, EOFError) as error:
            code = self.close()
            raise Late(f"its process did not start ({error or f'status {code}'})") from error
        self._pipe = near
        return near


def _received(pipe: Connection, timeout: float | None) -> Any:
    """The next answer, or the exception that it stands for."""
    if not pipe.poll(timeout):
        raise Late(f"no answer within {timeout:g} s")
    kind, answer = pipe.recv()
    if kind == "failure":
        raise ScoringFailure(answer)
    if kind == "error":
        raise ValueError(answer)
    return answer


def serve(pipe: Connection, spec: str, arguments: dict[str, Any]) -> None:
    """What the process does: makes the reward, then scores until the pipe is closed."""
    from diffalign.rewards.registry import get

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the run decides what it means
    torch.set_num_threads(1)
    try:
        reward = get(spec, **arguments)
    except Exception as error:  # the run raises it, in its own process
        pipe.send(("error", _told(error)))
        return
    pipe.send(("ready", None))
    while True:
        try:
            images, prompts, metadata = pipe.recv()
        except EOFError:
            return
        try:
            with torch.no_grad():
                scores = as_scores(reward.name, reward(torch.from_numpy(images), prompts, metadata), "cpu")
            pipe.send(("scores", scores.float().cpu().numpy()))
        except ScoringFailure as failure:
            pipe.send(("failure", str(failure)))
        except Exception as error:  # as above
            pipe.send(("error", _told(error)))


def _told(error: Exception) -> str:
    """An exception as text, with its place in the user's code."""
    return f"{type(error).__name__}: {error}{place(error.__traceback__)}"
