"""One HTTP exchange within a deadline, again where that may help; no answer and wrong wiring are different errors.

A key is read from the environment at each call, sent in one header, and never stored, logged or put into a message.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
WIRING = {401, 403, 404, 405}
"""Statuses that no retry and no other image will change: a wrong key, address or model."""
PASSING = {408, 409, 425, 429}
"""Statuses below 500 that may pass."""
LONGEST_WAIT = 60.0
"""Most seconds that a server may ask to wait."""
CHUNK = 65536
LARGEST = 64 * 1024 * 1024
"""Most bytes of an answer."""


class NoAnswer(Exception):
    """The server gave no usable answer to this question; the cause is one short word for counting."""

    def __init__(self, cause: str, detail: str = "", *, retry: bool = True, wait: float = 0.0) -> None:
        """Says what is missing.

        Args:
            cause: `late`, `refused`, `half`, `garbage`, `busy` or `unreachable`.
            detail: For the log.
            retry: Whether asking again may help.
            wait: Seconds that the server asks to wait.
        """
        super().__init__(f"{cause}{': ' if detail else ''}{detail}")
        self.cause, self.retry, self.wait = cause, retry, wait


class Address(NamedTuple):
    """Where to ask: `https` or not, host, port, path without a slash at its end, and where the user wrote it."""

    secure: bool
    host: str
    port: int | None
    path: str
    source: str


def read_address(url: str, source: str) -> Address:
    """The parts of an address such as `http://localhost:8000/v1`.

    Args:
        url: The address.
        source: What the user set it with, for messages; the address itself is never repeated.

    Raises:
        ValueError: If it is no http(s) address, or one with a user and password.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(f"{source} holds a user or password; give the key in its own variable")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{source} is no http(s) address; give one such as http://localhost:8000/v1")
    return Address(parts.scheme == "https", parts.hostname, parts.port, parts.path.rstrip("/"), source)


def patiently(attempt: Callable[[], T], retries: int, backoff: float) -> T:
    """The first result of an attempt that is no `NoAnswer`.

    Waits backoff * 2^n seconds (times 1 to 1.5, so that callers do not march in step), or what the server asks for.

    Args:
        attempt: One exchange, with the reading of its answer.
        retries: Further attempts after the first.
        backoff: Seconds before the second attempt.

    Raises:
        NoAnswer: If no attempt brought an answer.
    """
    number = 0
    while True:
        try:
            return attempt()
        except NoAnswer as failure:
            if number >= retries or not failure.retry:
                raise
            time.sleep(max(min(failure.wait, LONGEST_WAIT), backoff * 2**number * random.uniform(1.0, 1.5)))
        number += 1


def together(attempts: Sequence[Callable[[], T]], concurrency: int) -> list[T | NoAnswer]:
    """What each attempt brings, in order, `concurrency` at once; a `NoAnswer` stands in the place of its answer."""

    def one(attempt: Callable[[], T]) -> T | NoAnswer:
        try:
            return attempt()
        except NoAnswer as failure:
            return failure

    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, attempts))


def exchange(
    where: Address, path: str, body: bytes | None = None, *, kind: str = "", key_env: str, timeout: float, advice: str
) -> bytes:
    """Posts a body, or gets where there is none; one attempt.

    Args:
        where: The server.
        path: Added to the server's own.
        body: What to post.
        kind: Its content type.
        key_env: Variable with the key; unset: no key is sent.
        timeout: Seconds from connecting to the last byte.
        advice: What the user should check when the server refuses key, address or model.

    Returns:
        The answer's body.

    Raises:
        NoAnswer: If there was none.
        ValueError: If the server says that key, address or model are wrong, or its certificate is not trusted.
    """
    deadline = time.monotonic() + timeout
    made = http.client.HTTPSConnection if where.secure else http.client.HTTPConnection
    connection = made(where.host, where.port, timeout=timeout)
    try:
        connection.request("GET" if body is None else "POST", where.path + path, body, _headers(kind, key_env))
        socket = connection.sock
        response = connection.getresponse()
        text = _read(response, socket, deadline)
    except TimeoutError as error:
        raise NoAnswer("late", f"nothing within {timeout:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise ValueError(f"{where.source}: the server's certificate is not trusted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer("unreachable", type(error).__name__) from error
    finally:
        connection.close()
    reason = _reason(text, os.environ.get(key_env, ""))
    _check_status(response, reason, f"the server of {where.source}", advice)
    return text


def _reason(text: bytes, key: str) -> str:
    """The server's own words, as far as `error` holds some; never the key."""
    try:
        error = json.loads(text)["error"]
        words = str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" ({words.replace(key, '***') if key else words})" if words.isprintable() else ""


def _headers(kind: str, key_env: str) -> dict[str, str]:
    headers = {"Connection": "close"}
    if kind:
        headers["Content-Type"] = kind
    if os.environ.get(key_env):
        headers["Authorization"] = f"Bearer {os.environ[key_env]}"
    return headers


def _read(response: http.client.HTTPResponse, socket: Any, deadline: float) -> bytes:
    """The whole body; a server that dribbles past the deadline is late, one that stops early has given half."""
    parts: list[bytes] = []
    length = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        socket.settimeout(left)
        part = response.read1(CHUNK)
        if not part:
            break
        parts.append(part)
        length += len(part)
        if length > LARGEST:
            raise NoAnswer("garbage", "an answer beyond all bounds", retry=False)
    if response.length:
        raise NoAnswer("half", f"{response.length} bytes are missing")
    return b"".join(parts)


def _check_status(response: http.client.HTTPResponse, reason: str, who: str, advice: str) -> None:
    """Tells a wrong wiring from a failure that may pass, and from one that belongs to the question."""
    status = response.status
    if status < 300:
        return
    if status in WIRING or status < 400:
        raise ValueError(f"{who} answers {status} {response.reason}{reason}; {advice}")
    after = response.headers.get("Retry-After", "")
    wait = float(after) if after.replace(".", "", 1).isdigit() else 0.0
    if status in PASSING or status >= 500:
        raise NoAnswer("busy", f"{status}{reason}", wait=wait)
    raise NoAnswer("refused", f"{status}{reason}", retry=False)
