"""What a reward server and its clients say to each other; docs/rewards/server.md describes it for other languages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffalign.rewards.bodies import pack, unpack
from diffalign.rewards.images import check_images

VERSION = 1
URL_ENV = "DIFFALIGN_REWARD_URL"
TOKEN_ENV = "DIFFALIGN_REWARD_TOKEN"
LONGEST_ID = 64
FIELDS = ("id", "reward", "images", "prompts", "metadata")


class Limits(NamedTuple):
    """What a server takes in one request.

    Attributes:
        body_bytes: Of a body.
        images: Per request.
        pixels: Per image.
    """

    body_bytes: int = 64 * 2**20
    images: int = 256
    pixels: int = 4096 * 4096


class Request(NamedTuple):
    """Images to score by one reward; `id` comes back with the answer, so that no answer is taken for another one."""

    id: str
    reward: str
    images: list[Tensor]
    prompts: list[str]
    metadata: list[dict[str, Any]]
    sound: list[bool]
    """Whether each image is finite; the others are black here, and are not scored."""


class Answer(NamedTuple):
    """One score per image, NaN where there is none, and why, by position."""

    scores: list[float]
    errors: dict[int, str]


def write_request(
    id: str,
    reward: str,
    images: Tensor,
    prompts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    encoding: str,
) -> tuple[str, bytes]:
    """Content type and body of a request.

    Args:
        id: Of this attempt.
        reward: Name on the server.
        images: `(B, 3, H, W)` in [0, 1].
        prompts: `B` prompts.
        metadata: `B` records.
        encoding: See `diffalign.rewards.bodies.ENCODINGS`.

    Raises:
        ValueError: If a record cannot travel.
    """
    fields = {"id": id, "reward": reward, "prompts": list(prompts), "metadata": list(metadata)}
    return pack(fields, images, encoding)


def read_request(kind: str, body: bytes, limits: Limits) -> Request:
    """A request, checked.

    Raises:
        ValueError: If it is none, its parts do not fit together, it is beyond the limits, or images leave [0, 1].
    """
    fields, images = unpack(kind, body, limits.pixels)
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown fields {', '.join(unknown)}; valid: {', '.join(FIELDS)}")
    id, reward, prompts = fields.get("id"), fields.get("reward"), fields.get("prompts")
    metadata = fields.get("metadata") or [{}] * len(images)
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise ValueError(f"`id` is a text of 1 to {LONGEST_ID} characters")
    if not isinstance(reward, str):
        raise ValueError("`reward` is the name of a reward")
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError("`prompts` is a list of texts")
    if not isinstance(metadata, list) or not all(isinstance(record, dict) for record in metadata):
        raise ValueError("`metadata` is a list of objects")
    if not 0 < len(images) <= limits.images:
        raise ValueError(f"{len(images)} images in one request; valid: 1 to {limits.images}")
    if not len(images) == len(prompts) == len(metadata):
        raise ValueError(
            f"{len(images)} images, {len(prompts)} prompts and {len(metadata)} metadata records: give one each"
        )
    sound = [bool(check_images(image[None])) for image in images]
    images = [image if fine else torch.zeros_like(image) for image, fine in zip(images, sound, strict=True)]
    return Request(id, reward, images, prompts, metadata, sound)


def write_answer(request: Request, answer: Answer) -> dict[str, Any]:
    """The answer as JSON has it: null for NaN and infinities."""
    scores = [score if math.isfinite(score) else None for score in answer.scores]
    errors = {str(position): text for position, text in answer.errors.items()}
    return {"id": request.id, "reward": request.reward, "scores": scores, "errors": errors}


def read_answer(body: bytes, id: str, reward: str, count: int) -> Answer:
    """The answer to a request.

    Raises:
        ValueError: If it is none, or the answer to another request, or has another number of scores.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("no JSON") from error
    if not isinstance(given, dict):
        raise ValueError("no JSON object")
    if given.get("id") != id or given.get("reward") != reward:
        raise ValueError("the answer to another request")
    scores, errors = given.get("scores"), given.get("errors", {})
    if not isinstance(scores, list) or len(scores) != count:
        raise ValueError(f"not {count} scores")
    if not isinstance(errors, dict):
        raise ValueError("`errors` is no object")
    texts = {int(position): str(text) for position, text in errors.items() if position.isdecimal()}
    return Answer([_score(score) for score in scores], texts)


def _score(given: Any) -> float:
    """A finite float32, or NaN for null."""
    if given is None:
        return math.nan
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError(f"a score that is a {type(given).__name__}")
    try:
        score = float(given)
    except OverflowError as error:
        raise ValueError("a score beyond float32") from error
    if not math.isfinite(score) or abs(score) > torch.finfo(torch.float32).max:
        raise ValueError("a score that is not finite")
    return score
