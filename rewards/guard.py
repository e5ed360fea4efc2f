"""A reward with protection around it: batch size, device, deadline, retries, cache. Still a reward.

What cannot be scored in the end is NaN for its batch alone and is logged; the run decides how many failures it accepts.
An exception other than `ScoringFailure` and lateness is an error of the wiring and passes through at once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from diffalign.naming import unknown
from diffalign.rewards.base import Metadata, Reward, ScoringFailure
from diffalign.rewards.cache import ScoreCache, content_key
from diffalign.rewards.deadline import Late, ThreadWorker
from diffalign.rewards.outputs import as_scores, check_output
from diffalign.rewards.process import ProcessWorker
from diffalign.rewards.wrapped import WrappedReward, moved

logger = logging.getLogger(__name__)


class GuardOptions(NamedTuple):
    """How one reward is run.

    Attributes:
        device: of its weights; default that of the run.
        batch_size: images per call; default as they come.
        worker: `thread`, or `process` for pure Python code that would hold up the run (needs a name or file).
        timeout: seconds that a call may take; None = any.
        retries: more tries after a call that failed or was late.
        backoff: seconds before the first of them; doubles each time.
    """

    device: str | None = None
    batch_size: int | None = None
    worker: Literal["thread", "process"] = "thread"
    timeout: float | None = None
    retries: int = 0
    backoff: float = 1.0


def read_options(reward: str, given: Any) -> GuardOptions:
    """Options of one reward as YAML has them.

    Raises:
        ValueError: no mapping, an unknown option (the nearest is named), or a value outside its range.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"reward_options of {reward} must be a mapping, got {given!r}")
    for name in given:
        if name not in GuardOptions._fields:
            raise unknown(f"reward option of {reward}:", name, GuardOptions._fields)
    options = GuardOptions(**given)
    whole = isinstance(options.retries, int) and isinstance(options.batch_size, int | None)
    lengths = [x for x in (options.timeout, options.backoff) if x is not None]
    sound = whole and all(isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in lengths)
    if (
        not sound
        or options.retries < 0
        or options.timeout == 0
        or (1 if options.batch_size is None else options.batch_size) < 1
    ):
        raise ValueError(
            f"reward_options of {reward}: batch_size is a whole number >= 1, retries one >= 0, timeout > 0 and backoff "
            f">= 0 are seconds; got {dict(given)}"
        )
    if options.worker not in ("thread", "process"):
        raise ValueError(f"reward_options of {reward}: worker {options.worker!r} is unknown; valid: thread, process")
    if options.device is not None:
        _check_device(reward, options.device)
        if options.worker == "process":
            raise ValueError(f"reward_options of {reward}: a process worker scores on the CPU, leave out device")
    return options


def _check_device(reward: str, device: Any) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"reward_options of {reward}: no device {device!r} here ({first})") from error


class GuardedReward(WrappedReward):
    """A reward called in batches, on its device, with a deadline, retries and a cache of scores.

    Calls with a gradient have no deadline, retries or cache.

    Args:
        reward: the reward.
        options: see `GuardOptions`.
        spec: what it was made of, for a process worker: a registered name or `file.py:function`.
        arguments: its keyword arguments, likewise.
        cache: where scores are kept; None = nowhere.
        identity: of the reward in the cache; None = it is not cached.

    Raises:
        ValueError: a process worker for a reward given as an object, or batches for one that compares images.
    """

    def __init__(
        self,
        reward: Reward,
        options: GuardOptions,
        *,
        spec: Any = None,
        arguments: Mapping[str, Any] | None = None,
        cache: ScoreCache | None = None,
        identity: str | None = None,
    ) -> None:
        super().__init__(reward)
        self.options = options
        pointwise = reward.scope == "pointwise"
        if options.batch_size and not pointwise:
            raise ValueError(f"reward {self.name} compares images ({reward.scope}): batch_size would split its groups")
        self._cache = cache if pointwise and identity is not None else None
        self._identity = identity or ""
        self._thread = ThreadWorker(f"reward {self.name}")
        self._process = None
        if options.worker == "process":
            if not isinstance(spec, str):
                raise ValueError(f"reward {self.name}: worker process needs a registered name or file.py:function")
            self._process = ProcessWorker({spec: arguments or {}})
            self._spec = spec
        if options.device is not None:
            moved(reward, options.device)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the weights, unless they have a device of their own."""
        return super().to(None if self.options.device is not None else device, dtype)

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)`; see `Reward`."""
        if images.requires_grad and torch.is_grad_enabled() and self.differentiable:
            return self._in_batches(images, prompts, metadata, self._direct)
        if self._cache is None:
            return self._in_batches(images, prompts, metadata, self._patient)
        return self._remembered(self._cache, images, prompts, metadata)

    def _remembered(
        self, cache: ScoreCache, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]
    ) -> Tensor:
        """Scores of the cache, and of the reward where the cache has none."""
        keys = [content_key(self._identity, *one) for one in zip(images, prompts, metadata, strict=True)]
        known = cache.get(keys)
        rows = [i for i, key in enumerate(keys) if key not in known]
        if rows:
            some = images if len(rows) == len(images) else images[torch.tensor(rows, device=images.device)]
            texts, records = [prompts[i] for i in rows], [metadata[i] for i in rows]
            fresh = self._in_batches(some, texts, records, self._patient).float().tolist()
            new = {keys[i]: value for i, value in zip(rows, fresh, strict=True)}
            cache.put(new)
            known |= new
        return torch.tensor([known[key] for key in keys], dtype=torch.float32, device=images.device)

    def _in_batches(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata], ask: Any) -> Tensor:
        size = self.options.batch_size or max(len(images), 1)
        parts = []
        for start in range(0, max(len(images), 1), size):
            some = slice(start, start + size)
            returned = ask(images[some], list(prompts[some]), list(metadata[some]))
            scores = as_scores(self.name, returned, images.device)
            check_output(self.name, self.differentiable, scores, images[some])
            parts.append(scores.to(images.device))
        return torch.cat(parts)

    def _direct(self, images: Tensor, prompts: list[str], metadata: list[Metadata]) -> Tensor:
        device = images.device if self.options.device is None else self.options.device
        return self.inner(images.to(device), prompts, metadata)

    def _patient(self, images: Tensor, prompts: list[str], metadata: list[Metadata]) -> Tensor:
        """Calls the reward until it answers or the tries are used up; then NaN."""
        tries = self.options.retries + 1
        for number in range(tries):
            try:
                return self._once(images, prompts, metadata)
            except (ScoringFailure, Late) as failure:
                last = failure
            if number + 1 < tries:
                time.sleep(self.options.backoff * 2**number)
        logger.warning("reward %r could not score %d images in %d tries: %s", self.name, len(images), tries, last)
        return torch.full((len(images),), torch.nan, device=images.device)

    def _once(self, images: Tensor, prompts: list[str], metadata: list[Metadata]) -> Tensor:
        if self._process is not None:
            return self._process.score(self._spec, images, prompts, metadata, self.options.timeout)
        if self.options.timeout is None:
            return self._direct(images, prompts, metadata)
        return self._thread.call(lambda: self._direct(images, prompts, metadata), self.options.timeout)
