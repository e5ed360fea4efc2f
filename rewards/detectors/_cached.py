"""A judge in front of which its answers are kept on disk, by the hash of image, question and judge.

An evaluation that was cut off goes on, and a scorer may be run again with other thresholds, without a model at work. A
batch is asked as a whole or not at all, so that an answer never depends on where an earlier run stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation.judges import Detection, judge_name
from diffalign.rewards.cache import KeyedStore, content_key
from diffalign.rewards.detectors._records import from_json, to_json

UNCACHED = frozenset({"depth"})
"""Roles whose answers are as large as the images."""


def described(judge: Any) -> dict[str, Any]:
    """What identifies a judge in a result: its own description, else its name alone."""
    return dict(judge.describe()) if hasattr(judge, "describe") else {"name": judge_name(judge), "revision": ""}


def cached(judge: Callable[..., Any], role: str, path: str | Path) -> Callable[..., Any]:
    """The judge with its answers kept, where that is safe.

    A judge that cannot say what it is (no `describe`), says that it may change (`cacheable` is False), or gives maps
    as large as the images, is returned as it is.

    Args:
        judge: The judge.
        role: A field of `diffalign.evaluation.judges.Judges`.
        path: SQLite file, or a folder for it.
    """
    known = hasattr(judge, "describe") and getattr(judge, "cacheable", True) and role not in UNCACHED
    return CachedJudge(judge, role, path) if known else judge


class CachedJudge:
    """A judge that is asked once per batch of images and questions."""

    def __init__(self, judge: Any, role: str, path: str | Path) -> None:
        """Wraps a judge; see `cached`."""
        self._judge, self._role = judge, role
        self._store = KeyedStore(path, "answers", "TEXT")
        self._identity: str | None = None
        self.name = judge_name(judge)
        self.asked = 0

    def describe(self) -> dict[str, Any]:
        """The judge's own."""
        return described(self._judge)

    def __call__(self, images: Tensor, *rest: Sequence[Any]) -> Any:
        """The judge's answers, in its own form."""
        if self._identity is None:
            self._identity = json.dumps([self._role, self.describe()], sort_keys=True, default=str)
        questions = [_plain(list(one)) for one in zip(*rest, strict=True)] if rest else [[] for _ in images]
        keys = [
            content_key(self._identity, image, "", {"question": question})
            for image, question in zip(images, questions, strict=True)
        ]
        known = self._store.read(keys)
        if set(keys) <= set(known):
            return self._decoded([json.loads(known[key]) for key in keys])
        self.asked += len(images)
        answers = self._judge(images, *rest)
        rows = answers.tolist() if isinstance(answers, Tensor) else answers
        self._store.write({key: json.dumps(_plain(row)) for key, row in zip(keys, rows, strict=True) if _whole(row)})
        return answers

    def _decoded(self, values: list[Any]) -> Any:
        """Answers of a batch out of their JSON."""
        if self._role == "similarity":
            return torch.tensor(values)
        if self._role == "detect":
            return [[from_json(record, "the cache") for record in value] for value in values]
        return values


def _plain(value: Any) -> Any:
    """The JSON form of what goes into a judge or comes out of it."""
    if isinstance(value, Detection):
        return to_json(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _whole(row: Any) -> bool:
    """Whether an answer is there: a failure (NaN, an empty text) is not kept, so that it is tried again."""
    if isinstance(row, float):
        return math.isfinite(row)
    if isinstance(row, str):
        return bool(row)
    return all(_whole(item) for item in row) if isinstance(row, list | tuple) else True
