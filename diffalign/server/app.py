"""The reward server's HTTP side: four routes, the token, the limits. See docs/rewards/server.md for the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from diffalign.naming import unknown
from diffalign.rewards.bodies import ENCODINGS, JSON, SAFETENSORS
from diffalign.rewards.protocol import VERSION, Answer, Limits, read_request, write_answer
from diffalign.server.dispatch import Busy, Dispatcher
from diffalign.server.metrics import Metrics

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)


class Refusal(Exception):
    """An answer other than scores: HTTP status and the reason."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        """Keeps status, reason, and the seconds after which it may be tried again."""
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


class Service(NamedTuple):
    """What the routes need.

    Attributes:
        dispatcher: Scores requests.
        rewards: What each reward says of itself, by name.
        metrics: Counts.
        limits: Of a request.
        token: That clients have to send; empty: none.
        upload_seconds: That a body may take to arrive.
    """

    dispatcher: Dispatcher
    rewards: Mapping[str, Mapping[str, Any]]
    metrics: Metrics
    limits: Limits = Limits()
    token: str = ""
    upload_seconds: float = 60.0


def make_app(service: Service) -> Starlette:
    """The ASGI application."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        service.dispatcher.start()
        yield
        await service.dispatcher.stop()

    async def score(request: Request) -> Response:
        _check_token(service, request)
        return await _score(service, request)

    async def listing(request: Request) -> Response:
        _check_token(service, request)
        return _json(
            {
                "protocol": VERSION,
                "rewards": list(service.rewards.values()),
                "encodings": ENCODINGS,
                "limits": service.limits._asdict(),
            }
        )

    async def metrics(request: Request) -> Response:
        _check_token(service, request)
        return _metrics(service)

    async def health(request: Request) -> Response:
        alive = _alive(service)
        return _json({"status": "ok" if alive else "no device runs", "devices": alive}, 200 if alive else 503)

    routes = [
        Route("/score", score, methods=["POST"]),
        Route("/rewards", listing),
        Route("/metrics", metrics),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=running, exception_handlers={Refusal: _refused(service)})


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status, headers)


def _refused(service: Service) -> Any:
    """Turns a `Refusal` into its answer."""

    async def handle(request: Request, refusal: Refusal) -> Response:
        service.metrics.request(refusal.status)
        after = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        return _json({"error": str(refusal)}, refusal.status, after)

    return handle


def _check_token(service: Service, request: Request) -> None:
    given = request.headers.get("authorization", "")
    if service.token and not hmac.compare_digest(given.encode(), f"Bearer {service.token}".encode()):
        raise Refusal(401, "the token is missing or wrong: send `Authorization: Bearer TOKEN`")


def _alive(service: Service) -> int:
    return sum(worker.alive for worker in service.dispatcher.workers)


def _metrics(service: Service) -> Response:
    from prometheus_client import CONTENT_TYPE_LATEST
    from starlette.responses import Response

    text = service.metrics.text(service.dispatcher.waiting, _alive(service))
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _score(service: Service, request: Request) -> Response:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in (JSON, SAFETENSORS):
        raise Refusal(415, f"content type {kind!r}; valid: {JSON}, {SAFETENSORS}")
    body = await _body(service, request)
    try:
        asked = await asyncio.to_thread(read_request, kind, body, service.limits)
        if asked.reward not in service.rewards:
            raise Refusal(404, str(unknown("reward", asked.reward, service.rewards)))
        answer = await _unless_gone(request, service.dispatcher.score(asked))
    except ValueError as error:
        raise Refusal(400, str(error)) from error
    except Busy as error:
        raise Refusal(503, str(error), retry_after=1) from error
    service.metrics.request(200)
    service.metrics.scored(asked.reward, len(answer.scores), len(answer.errors))
    return _json(write_answer(asked, answer))


async def _body(service: Service, request: Request) -> bytes:
    """The whole body, within size and time."""
    most = service.limits.body_bytes
    too_large = Refusal(413, f"the body is larger than {most} bytes; send fewer images at once")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    parts = bytearray()
    try:
        async with asyncio.timeout(service.upload_seconds):
            async for part in request.stream():
                parts += part
                if len(parts) > most:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the body took longer than {service.upload_seconds:g} s") from None
    return bytes(parts)


async def _unless_gone(request: Request, scoring: Any) -> Answer:
    """The answer, unless the client hangs up first: then nobody is left to score for."""
    work = asyncio.ensure_future(scoring)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refusal(499, "the client has gone")
        answer: Answer = work.result()
        return answer
    finally:
        gone.cancel()
        work.cancel()
