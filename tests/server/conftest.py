"""A reward server in a thread of the test, whose devices score in that thread as well."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from diffalign.rewards.deadline import Late
from diffalign.rewards.protocol import Request
from diffalign.server.dispatch import Dispatcher
from diffalign.server.metrics import Metrics

Function = Callable[[Tensor, Sequence[str], Sequence[Mapping[str, Any]]], Any]


def brightness(images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> Tensor:
    """Mean of each image; says so where a prompt is `wrong`, and dies where it is `die`."""
    if "wrong" in prompts:
        raise ValueError("KeyError: 'tag'")
    if "die" in prompts:
        raise Late("its process died with status 7")
    return torch.tensor([torch.nan if p == "nan" else float(i.mean()) for i, p in zip(images, prompts, strict=True)])


class Device:
    """A worker whose process is the test; remembers the sizes of its calls, and waits for `free` before each."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self.functions, self.calls, self.starts = dict(functions), [], 0
        self.alive, self.free, self.entered = True, threading.Event(), threading.Event()
        self.free.set()

    def start(self) -> None:
        self.starts, self.alive = self.starts + 1, True

    def score(self, spec: str, images: Tensor, prompts: Any, metadata: Any, timeout: float | None = None) -> Tensor:
        self.entered.set()
        assert self.free.wait(10)
        self.calls.append((spec, len(images)))
        try:
            return self.functions[spec](images, prompts, metadata)
        except Late:
            self.alive = False
            raise


def request(images: Tensor, reward: str = "bright", prompts: Sequence[str] | None = None) -> Request:
    """A request of images `(B, 3, H, W)`."""
    texts = ["p"] * len(images) if prompts is None else list(prompts)
    return Request("1", reward, list(images), texts, [{} for _ in texts], [True for _ in texts])


def make_dispatcher(devices: Sequence[Device], **options: Any) -> Dispatcher:
    """Serves `bright`, each image alone, and `spread`, a group."""
    pytest.importorskip("prometheus_client", reason="the server extra is not installed")
    scopes, specs = {"bright": "pointwise", "spread": "group"}, {"bright": "b.py:bright", "spread": "spread"}
    return Dispatcher(devices, scopes, specs, Metrics(), **options)


def spread(images: Tensor, prompts: Any, metadata: Any) -> Tensor:
    """Distance of each image from the mean of its group."""
    return (images - images.mean(0)).abs().mean((1, 2, 3))


def device() -> Device:
    return Device({"b.py:bright": brightness, "spread": spread})


class Reply(NamedTuple):
    status: int
    content: Any
    headers: Mapping[str, str]


def call(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    """One HTTP exchange."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        text = response.read()
        kind = response.headers.get("Content-Type", "")
        return Reply(response.status, json.loads(text) if "json" in kind else text.decode(), dict(response.headers))
    finally:
        connection.close()


@contextmanager
def listening(service: Any) -> Iterator[str]:
    """The address of the service, served by uvicorn in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server extra is not installed")
    pytest.importorskip("starlette", reason="the server extra is not installed")
    from diffalign.server.app import make_app
    from diffalign.server.serve import _listen

    listener = _listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="warning", ws="none", http="h11"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves `bright` and `spread` from devices, with fields of `Service`; returns the address."""
    with ExitStack() as stack:

        def start(*devices: Device, options: Mapping[str, Any] | None = None, **fields: Any) -> str:
            from diffalign.server.app import Service

            dispatcher = make_dispatcher(devices, **(options or {}))
            rewards = {
                "bright": {"name": "bright", "spec": "b.py:bright", "scope": "pointwise", "needs": [], "version": "1"},
                "spread": {"name": "spread", "scope": "group", "needs": ["group_ids"]},
            }
            return stack.enter_context(listening(Service(dispatcher, rewards, dispatcher._metrics, **fields)))

        yield start
