"""A reward behind a reward server: on another device, another machine, or in an environment of its own.

What the server does not answer is NaN and counted. An answer counts only if it carries the id of its own request and
one score per image; so none is ever taken for another. What no retry can mend (a wrong token, address or name) is an
error.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from diffalign.naming import unknown as unknown_name
from diffalign.rewards.base import NEEDS, Metadata, Reward, Scope
from diffalign.rewards.bodies import ENCODINGS
from diffalign.rewards.client_options import check_options, refuse_unknown
from diffalign.rewards.protocol import TOKEN_ENV, URL_ENV, VERSION, Answer, Limits, read_answer, write_request
from diffalign.rewards.transport import Address, NoAnswer, exchange, patiently, read_address, together

logger = logging.getLogger(__name__)

BYTES = {"float32": 4, "float16": 2, "uint8": 1, "png": 1.4}
"""Most bytes of a body per colour value; base64 makes 4 of 3."""


class Described(NamedTuple):
    """What a server says of one of its rewards, and of itself."""

    name: str
    scope: Scope
    range: tuple[float, float] | None
    needs: frozenset[str]
    version: str
    encodings: tuple[str, ...]
    limits: Limits


class RemoteReward(Reward):
    """One reward of a reward server."""

    environment = (URL_ENV,)

    def __init__(
        self,
        name: str,
        *,
        url: str | None = None,
        url_env: str = URL_ENV,
        token_env: str = TOKEN_ENV,
        encoding: str | None = None,
        batch_size: int = 16,
        concurrency: int = 4,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 1.0,
        **unknown: object,
    ) -> None:
        """Asks the server what the reward is.

        Args:
            name: Of the reward on the server, or what the server was started with (`jpeg`).
            url: The server's address, such as `http://gpu2:8900`; None: the one in `url_env`.
            url_env: Environment variable with the address.
            token_env: Environment variable with the token; unset: none is sent.
            encoding: How images travel: `float32` and `float16` as they are, `uint8` and `png` rounded to 8 bits; None:
                what the server names first.
            batch_size: Most images per request; fewer where the server's limits say so.
            concurrency: Most requests at once.
            timeout: Seconds for one attempt in all.
            retries: Further attempts.
            backoff: Seconds before the second attempt; doubles each time.
            **unknown: Nothing else; a token here is refused.

        Raises:
            ValueError: If an argument is unknown, is a secret, or is outside its range; if the server is not there,
                speaks another protocol, or does not have the reward (the nearest is named).
        """
        valid = [key for key in inspect.signature(type(self)).parameters if key != "unknown"]
        refuse_unknown(unknown, valid, TOKEN_ENV, "token")
        variables = {"url_env": url_env, "token_env": token_env}
        counts = {"batch_size": batch_size, "concurrency": concurrency, "retries": retries, "backoff": backoff}
        check_options(variables, timeout, **counts)
        self._where = _address(url, url_env)
        self._batch_size, self._concurrency = batch_size, concurrency
        self._timeout, self._retries, self._backoff = timeout, retries, backoff
        self._token_env = token_env
        self.failures: Counter[str] = Counter()
        self._asked_for = name
        described = self._describe()
        self.name, self.scope, self.range = described.name, described.scope, described.range
        self.needs, self.version, self._limits = described.needs, described.version, described.limits
        self._encoding = _encoding(encoding, described.encodings)

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)` in [0, 1]; NaN where the server gave no answer."""
        size = len(images) if self.scope != "pointwise" else self._images_per_request(images)
        parts = [slice(start, start + size) for start in range(0, len(images), size)]
        asks = [partial(self._ask, images[part], prompts[part], metadata[part]) for part in parts]
        scores: list[float] = []
        failed: Counter[str] = Counter()
        first = ""
        for part, found in zip(parts, together(asks, self._concurrency), strict=True):
            count = len(images[part])
            if isinstance(found, NoAnswer):
                failed[found.cause] += count
                first = first or str(found)
                scores += [math.nan] * count
            else:
                failed["not scored"] += sum(map(math.isnan, found.scores))
                first = first or next(iter(found.errors.values()), "")
                scores += found.scores
        self._tell(+failed, len(images), first)
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def self_test(self) -> None:
        """Asks the server again what the reward is.

        Raises:
            ValueError: If it is not there, or has another reward by now.
        """
        if self._describe().version != self.version:
            raise ValueError(f"{self.name}: the server has another version of the reward by now")

    def _images_per_request(self, images: Tensor) -> int:
        each = images[0].numel() * BYTES[self._encoding] + 4096
        fit = int(self._limits.body_bytes / each)
        if fit < 1 or images.shape[-2] * images.shape[-1] > self._limits.pixels:
            raise ValueError(
                f"{self.name}: an image of {images.shape[-1]} x {images.shape[-2]} is beyond the server's limits "
                f"{self._limits._asdict()}; raise them there, or choose an encoding of fewer bytes"
            )
        return min(self._batch_size, self._limits.images, fit)

    def _ask(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Answer:
        """The answer for some images; each attempt has an id of its own."""

        def attempt() -> Answer:
            id = uuid.uuid4().hex
            kind, body = write_request(id, self.name, images, prompts, metadata, self._encoding)
            text = self._exchange("/score", body, kind)
            try:
                return read_answer(text, id, self.name, len(images))
            except ValueError as error:
                raise NoAnswer("garbage", str(error)) from error

        return patiently(attempt, self._retries, self._backoff)

    def _exchange(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        advice = f"check the address, the token in {self._token_env}, and the reward's name"
        options: dict[str, Any] = {"key_env": self._token_env, "timeout": self._timeout, "advice": advice}
        return exchange(self._where, path, body, kind=kind, **options)

    def _describe(self) -> Described:
        """What the server says of the reward now."""
        who = f"the server of {self._where.source}"
        try:
            text = patiently(lambda: self._exchange("/rewards"), self._retries, self._backoff)
        except NoAnswer as failure:
            raise ValueError(
                f"{who} does not answer ({failure}): start one with `diffalign serve-rewards --reward "
                f"{self._asked_for}`, or check the address"
            ) from failure
        try:
            listing = json.loads(text)
            if listing["protocol"] != VERSION:
                raise ValueError(f"it speaks protocol {listing['protocol']!r}, this client speaks {VERSION}")
            found = {
                reward.get(key, reward["name"]): reward for key in ("spec", "name") for reward in listing["rewards"]
            }
            if self._asked_for not in found:
                raise unknown_name(f"reward of {who}:", self._asked_for, found)
            return _described(found[self._asked_for], listing)
        except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{who} is no reward server: its /rewards cannot be read ({error!r})") from error

    def _tell(self, failed: Counter[str], asked: int, first: str) -> None:
        """One warning for all failures of a call."""
        if failed:
            self.failures += failed
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(failed.items()))
            logger.warning(
                "%s could not score %d of %d: %s; first: %s", self.name, failed.total(), asked, causes, first
            )


def _address(url: str | None, url_env: str) -> Address:
    given = os.environ.get(url_env, "") if url is None else url
    if not given:
        raise ValueError(f"give url, or set {url_env}, such as http://localhost:8900")
    return read_address(given, url_env if url is None else "url")


def _described(reward: Mapping[str, Any], listing: Mapping[str, Any]) -> Described:
    scope, needs = reward.get("scope", "pointwise"), frozenset(reward.get("needs", ()))
    if scope not in get_args(Scope) or not needs <= NEEDS:
        raise TypeError(f"scope {scope!r}, needs {sorted(needs)}")
    given = reward.get("range")
    bounds = None if given is None else (float(given[0]), float(given[1]))
    limits = Limits(**{key: int(value) for key, value in listing.get("limits", {}).items() if key in Limits._fields})
    encodings = tuple(listing.get("encodings", ("png",)))
    return Described(reward["name"], scope, bounds, needs, str(reward.get("version", "")), encodings, limits)


def _encoding(given: str | None, offered: Sequence[str]) -> str:
    """The encoding that is asked for, if both sides know it."""
    common = [encoding for encoding in offered if encoding in ENCODINGS]
    if not common:
        raise ValueError(f"the server reads none of {', '.join(ENCODINGS)}: it names {', '.join(offered)}")
    if given is not None and given not in common:
        raise ValueError(f"encoding {given!r} is not read by the server; valid: {', '.join(common)}")
    return given or common[0]
