"""One question to an OpenAI-compatible server, within a deadline; what is no answer is told apart from what is wrong.

The address and the key come from environment variables alone. The key is read at each call, sent in one header, and
never stored, logged or put into a message.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

URL_ENV = "DIFFALIGN_VLM_URL"
KEY_ENV = "DIFFALIGN_VLM_KEY"
WIRING = {401, 403, 404, 405}
"""Statuses that no retry and no other image will change: a wrong key, address or model."""
PASSING = {408, 409, 425, 429}
"""Statuses below 500 that may pass."""
LONGEST_WAIT = 60.0
"""Most seconds that a server may ask to wait."""
CHUNK = 65536
LARGEST = 64 * 1024 * 1024


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


class Endpoint(NamedTuple):
    """Where to ask: `https` or not, host, port, path of the chat completions."""

    secure: bool
    host: str
    port: int | None
    path: str


def endpoint(variable: str) -> Endpoint:
    """The server's address from an environment variable, such as `http://localhost:8000/v1`.

    Raises:
        ValueError: If the variable is unset or holds no http(s) address, or one with a user and password.
    """
    url = os.environ.get(variable, "")
    if not url:
        raise ValueError(f"set {variable} to the server's address, such as http://localhost:8000/v1")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(f"{variable} holds a user or password; give the key in its own variable")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{variable} is no http(s) address; give one such as http://localhost:8000/v1")
    path = parts.path.rstrip("/")
    return Endpoint(parts.scheme == "https", parts.hostname, parts.port, f"{path}/chat/completions")


def complete(
    payload: Mapping[str, Any],
    *,
    url_env: str = URL_ENV,
    key_env: str = KEY_ENV,
    timeout: float = 60.0,
    retries: int = 3,
    backoff: float = 1.0,
) -> dict[str, Any]:
    """Posts a chat completion, again after failures that may pass, and returns the first choice.

    Waits backoff * 2^n seconds (times 1 to 1.5, so that callers do not march in step), or what the server asks for.

    Args:
        payload: Body of the request.
        url_env: Variable with the address.
        key_env: Variable with the key; unset: no key is sent.
        timeout: Seconds that one attempt may take in all, from connecting to the last byte.
        retries: Further attempts after the first.
        backoff: Seconds before the second attempt.

    Returns:
        `choices[0]` of the answer, a mapping with `message`.

    Raises:
        NoAnswer: If no attempt brought one.
        ValueError: If the address is missing, or the server says that key, address or model are wrong.
    """
    where = endpoint(url_env)
    body = json.dumps(payload).encode()
    attempt = 0
    while True:
        try:
            return _once(where, body, os.environ.get(key_env, ""), timeout, url_env, key_env)
        except NoAnswer as failure:
            if attempt >= retries or not failure.retry:
                raise
            time.sleep(max(min(failure.wait, LONGEST_WAIT), backoff * 2**attempt * random.uniform(1.0, 1.5)))
        attempt += 1


def _once(where: Endpoint, body: bytes, key: str, timeout: float, url_env: str, key_env: str) -> dict[str, Any]:
    """One attempt."""
    deadline = time.monotonic() + timeout
    kind = http.client.HTTPSConnection if where.secure else http.client.HTTPConnection
    connection = kind(where.host, where.port, timeout=timeout)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request("POST", where.path, body, headers)
        socket = connection.sock
        response = connection.getresponse()
        text = _read(response, socket, deadline)
    except TimeoutError as error:
        raise NoAnswer("late", f"nothing within {timeout:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise ValueError(f"{url_env}: the server's certificate is not trusted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer("unreachable", type(error).__name__) from error
    finally:
        connection.close()
    _check_status(response, text, url_env, key_env)
    return _first_choice(text)


def _read(response: http.client.HTTPResponse, socket: Any, deadline: float) -> bytes:
    """The whole body; a server that dribbles past the deadline is late, one that stops early has given half."""
    parts: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        socket.settimeout(left)
        part = response.read1(CHUNK)
        if not part:
            break
        parts.append(part)
        if sum(map(len, parts)) > LARGEST:
            raise NoAnswer("garbage", "an answer beyond all bounds", retry=False)
    if response.length:
        raise NoAnswer("half", f"{response.length} bytes are missing")
    return b"".join(parts)


def _check_status(response: http.client.HTTPResponse, text: bytes, url_env: str, key_env: str) -> None:
    """Tells a wrong wiring from a failure that may pass, and from one that belongs to the question."""
    status = response.status
    if status < 300:
        return
    if status in WIRING or status < 400:
        raise ValueError(
            f"the server of {url_env} answers {status} {response.reason}; check the address there, the key in "
            f"{key_env}, and the model's name"
        )
    after = response.headers.get("Retry-After", "")
    wait = float(after) if after.replace(".", "", 1).isdigit() else 0.0
    if status in PASSING or status >= 500:
        raise NoAnswer("busy", str(status), wait=wait)
    raise NoAnswer("refused", str(status), retry=False)


def _first_choice(text: bytes) -> dict[str, Any]:
    """`choices[0]` of a completion."""
    try:
        choice = json.loads(text)["choices"][0]
        if not isinstance(choice["message"], dict):
            raise TypeError("message is no mapping")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NoAnswer("garbage", f"no completion ({type(error).__name__})") from error
    return dict(choice)
