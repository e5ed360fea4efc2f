"""Starts the devices' processes, then serves until a signal; ends when what was asked before it is answered."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple

from diffalign.rewards.process import ProcessWorker
from diffalign.rewards.protocol import TOKEN_ENV, Limits
from diffalign.server.app import Service, make_app
from diffalign.server.dispatch import Dispatcher
from diffalign.server.metrics import Metrics

logger = logging.getLogger(__name__)

CONNECTIONS = 64
"""Most connections at once; times the largest body, what clients can make the server hold."""
STOP_SECONDS = 30


class Options(NamedTuple):
    """Where to listen, and how much to take on.

    Attributes:
        host: Address to bind.
        port: 0: any free one.
        token: That clients have to send; empty: none, on loopback only.
        batch_size: Most images in a call of a reward.
        queue_size: Most images that wait.
        timeout: Seconds that a call may take.
        limits: Of a request.
    """

    host: str = "127.0.0.1"
    port: int = 8900
    token: str = ""
    batch_size: int = 32
    queue_size: int = 4096
    timeout: float = 300.0
    limits: Limits = Limits()


def serve(
    specs: Mapping[str, Mapping[str, Any]],
    devices: Sequence[str],
    options: Options,
    ready: Callable[[str, list[str]], None],
) -> None:
    """Serves rewards until SIGINT or SIGTERM.

    Args:
        specs: Registered name or `file.py:function` -> keyword arguments.
        devices: One process each.
        options: See `Options`.
        ready: Called with the address and the rewards' names once the server listens.

    Raises:
        ValueError: If a reward cannot be made, two have one name, or an address other than loopback has no token.
        OSError: If the port is taken.
        ImportError: If the libraries of the extra `server` are missing.
    """
    check_libraries()
    check_exposure(options.host, options.token)
    listener = _listen(options.host, options.port)
    workers = [ProcessWorker(specs, device, threads=None) for device in devices]
    try:
        with ThreadPoolExecutor(len(workers)) as pool:
            (described, *_) = list(pool.map(ProcessWorker.start, workers))
        rewards = _by_name(described)
        metrics = Metrics()
        dispatcher = Dispatcher(
            workers,
            {name: reward["scope"] for name, reward in rewards.items()},
            {reward["name"]: spec for spec, reward in described.items()},
            metrics,
            batch_size=options.batch_size,
            queue_size=options.queue_size,
            timeout=options.timeout,
        )
        service = Service(dispatcher, rewards, metrics, options.limits, options.token)
        _run(service, listener, lambda url: ready(url, list(rewards)))
    finally:
        listener.close()
        for worker in workers:
            worker.close()


def check_libraries() -> None:
    """Whether the extra `server` is installed.

    Raises:
        ImportError: If it is not, with the command that installs it.
    """
    try:
        for name in ("prometheus_client", "starlette", "uvicorn"):
            import_module(name)
    except ImportError as error:
        raise ImportError(f"the reward server needs {error.name}: pip install 'diffalign[server]'") from error


def check_exposure(host: str, token: str) -> None:
    """Refuses to be reachable from elsewhere without a token.

    Raises:
        ValueError: If the address is not loopback and there is no token.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not token:
        raise ValueError(
            f"--host {host} can be reached from other machines: set a token in the environment variable {TOKEN_ENV}, "
            "or stay on 127.0.0.1"
        )


def _by_name(described: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    rewards = {reward["name"]: reward for reward in described.values()}
    if len(rewards) < len(described):
        names = ", ".join(f"{spec} -> {reward['name']}" for spec, reward in described.items())
        raise ValueError(f"two rewards have one name ({names}): serve one of them elsewhere")
    return rewards


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket: a port that is taken is an error before any model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from error
    return listener


def _run(service: Service, listener: socket.socket, ready: Callable[[str], None]) -> None:
    import uvicorn

    config = uvicorn.Config(
        make_app(service),
        loop="asyncio",
        ws="none",
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)

    def stop(number: int, frame: object) -> None:  # also takes the signals that uvicorn raises again once it has ended
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    listener.listen(CONNECTIONS)
    host, port = listener.getsockname()[:2]
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
