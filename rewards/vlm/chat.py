"""One question to an OpenAI-compatible server.

The address and the key come from environment variables alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from diffalign.rewards.transport import Address, NoAnswer, exchange, patiently, read_address

URL_ENV = "DIFFALIGN_VLM_URL"
KEY_ENV = "DIFFALIGN_VLM_KEY"


def endpoint(variable: str) -> Address:
    """The server's address from an environment variable, such as `http://localhost:8000/v1`.

    Raises:
        ValueError: If the variable is unset or holds no http(s) address, or one with a user and password.
    """
    url = os.environ.get(variable, "")
    if not url:
        raise ValueError(f"set {variable} to the server's address, such as http://localhost:8000/v1")
    return read_address(url, variable)


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

    Args:
        payload: Body of the request.
        url_env: Variable with the address.
        key_env: Variable with the key; unset: no key is sent.
        timeout: Seconds that one attempt may take in all, from connecting to the last byte.
        retries: Further attempts after the first; see `diffalign.rewards.transport.patiently`.
        backoff: Seconds before the second attempt.

    Returns:
        `choices[0]` of the answer, a mapping with `message`.

    Raises:
        NoAnswer: If no attempt brought one.
        ValueError: If the address is missing, or the server says that key, address or model are wrong.
    """
    where, body = endpoint(url_env), json.dumps(payload).encode()
    advice = f"check the address there, the key in {key_env}, and the model's name"

    def attempt() -> dict[str, Any]:
        kind = "application/json"
        return _first_choice(
            exchange(where, "/chat/completions", body, kind=kind, key_env=key_env, timeout=timeout, advice=advice)
        )

    return patiently(attempt, retries, backoff)


def _first_choice(text: bytes) -> dict[str, Any]:
    """`choices[0]` of a completion."""
    try:
        choice = json.loads(text)["choices"][0]
        if not isinstance(choice["message"], dict):
            raise TypeError("message is no mapping")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NoAnswer("garbage", f"no completion ({type(error).__name__})") from error
    return dict(choice)
