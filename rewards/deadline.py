"""Calls in a separate thread, with or without a deadline. A late call is abandoned: a thread cannot be killed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor


class Late(Exception):
    """No answer within the time allowed."""


class Lane:
    """Runs calls one after the other in a separate thread, which starts with the first call.

    The thread is a daemon: a call that never ends does not keep the interpreter alive. Gradients are off in it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Queue a call; its result or exception comes through the future."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                with torch.no_grad():
                    result = call()
            except BaseException as error:  # passed to the future: its result() raises it
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, call  # or the last images would stay in memory until the next call


class ThreadWorker:
    """Calls in a thread with a deadline. A late call is abandoned; the next one gets a new thread.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name, self._lane = name, Lane(name)

    def call(self, function: Callable[[], Tensor], timeout: float) -> Tensor:
        """The result of the function.

        Raises:
            Late: it took longer than `timeout` seconds.
        """
        future = self._lane.submit(function)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():  # the function itself raised it
                raise
            self._lane = Lane(self._name)
            raise Late(f"no answer within {timeout:g} s") from None
