"""Transforms of one reward before it meets the others, named in YAML.

A reward arrives as `(P, G)`, one row per prompt; NaN (could not be scored) stays NaN. A list of steps such as
`[{affine: {scale: 0.1}}, {clamp: {low: 0, high: 1}}, rank]` is read once and then applied to each rollout. Steps are
functions of `diffalign.losses`; running moments go in and come out, nothing here remembers anything.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from diffalign.losses.common import Moments, as_float, empty_moments, update_moments
from diffalign.losses.ranking import pareto_rank
from diffalign.losses.reward_shaping import (
    affine,
    center,
    deadband,
    logit_winrate,
    logsigmoid_ref,
    sigmoid_ref,
    standardize,
    threshold,
)
from diffalign.naming import unknown

Takes = Literal["reward", "batch", "moments", "reference"]
"""Inputs of a transform: each reward alone, the batch, running moments, or rewards of reference samples."""


def clamp(r: Tensor, *, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Return `r` held in [low, high].

    Raises:
        ValueError: the interval is empty.
    """
    if not low < high:
        raise ValueError(f"clamp needs low < high, got {low} and {high}")
    return as_float(r).clamp(low, high)


def rank(r: Tensor) -> Tensor:
    """Return the place of each sample `(P, G)` in its group: 1 for the best, 0 for the worst, evenly between them.

    Equal rewards share a place, and a group without spread is all 1.
    """
    rows = []
    for row in as_float(r.detach()):
        place = pareto_rank(row[:, None]).rank.to(row.dtype)
        last = place[row.isfinite()].max() if row.isfinite().any() else place.new_ones(())
        rows.append(torch.where(row.isfinite(), 1 - place / last.clamp(min=1), torch.nan))
    return torch.stack(rows)


def standardize_batch(r: Tensor, *, bound: float = math.inf, eps: float = 1e-8) -> Tensor:
    """Return `r` less its mean over its deviation, both over all samples of this rollout."""
    return standardize(r, update_moments(empty_moments(), r), bound=bound, eps=eps)


class Transform(NamedTuple):
    """A row of the table: the function, and its inputs beside the reward."""

    function: Callable[..., Tensor]
    takes: Takes = "reward"


TRANSFORMS: dict[str, Transform] = {
    "affine": Transform(affine),
    "clamp": Transform(clamp),
    "deadband": Transform(deadband),
    "threshold": Transform(threshold),
    "logit": Transform(logit_winrate),
    "rank": Transform(rank, "batch"),
    "normalize": Transform(standardize, "moments"),
    "normalize_batch": Transform(standardize_batch, "batch"),
    "center_ref": Transform(center, "reference"),
    "sigmoid_ref": Transform(sigmoid_ref, "reference"),
    "logsigmoid_ref": Transform(logsigmoid_ref, "reference"),
}
"""Name in YAML -> transform."""


class Step(NamedTuple):
    """One transform with its settings; `samples` are the reference samples per prompt that it needs."""

    name: str
    options: dict[str, Any]
    samples: int = 0

    @property
    def row(self) -> Transform:
        """The transform."""
        return TRANSFORMS[self.name]


def read_steps(reward: str, given: Any) -> list[Step]:
    """The transforms of one reward as YAML has them: a list of names, or of `{name: {option: value}}`.

    Raises:
        ValueError: no list, an unknown name or option (the nearest is named), a value outside its range, or a
            reference transform behind another one or behind a step that has no meaning for the reference.
    """
    items = given if isinstance(given, list) else [given]
    steps = [_read_step(reward, item) for item in items]
    where = [i for i, step in enumerate(steps) if step.row.takes == "reference"]
    before = steps[: where[-1]] if where else []
    wrong = [step.name for step in before if step.row.takes in ("batch", "reference")]
    if wrong:
        raise ValueError(
            f"reward_transforms of {reward}: `{steps[where[-1]].name}` compares with reference samples, which "
            f"`{wrong[0]}` before it leaves without a meaning; put it first"
        )
    _try(reward, steps)
    return steps


def _read_step(reward: str, item: Any) -> Step:
    name, options = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (item, {})
    if name not in TRANSFORMS if isinstance(name, str) else True:
        raise unknown(f"transform of reward {reward}:", name, TRANSFORMS)
    if not isinstance(options, Mapping):
        raise ValueError(f"reward_transforms of {reward}: {name} takes a mapping of options, got {options!r}")
    options, row = dict(options), TRANSFORMS[name]
    samples = options.pop("samples", 1) if row.takes == "reference" else 0
    if not isinstance(samples, int) or samples < (row.takes == "reference"):
        raise ValueError(f"reward_transforms of {reward}: {name} needs samples >= 1, got {samples!r}")
    check_options(f"option of transform {name}:", row.function, options)
    return Step(name, options, samples)


def check_options(what: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that are not keywords of a function, or that are missing.

    Raises:
        ValueError: an unknown option (the nearest is named) or one without default that is not given.
    """
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in {p.name for p in keywords}:
            raise unknown(what, name, [p.name for p in keywords])
    missing = [p.name for p in keywords if p.default is p.empty and p.name not in options]
    if missing:
        raise ValueError(f"missing {what} {', '.join(missing)}")


def _try(reward: str, steps: Sequence[Step]) -> None:
    """Refuses a value that can never work before the first rollout."""
    try:
        transformed(torch.full((1, 2), 0.5), steps, reference=torch.full((1, 1), 0.5))
    except (TypeError, ValueError) as error:
        raise ValueError(f"reward_transforms of {reward}: {error}") from error


def transformed(
    r: Tensor,
    steps: Sequence[Step],
    *,
    reference: Tensor | None = None,
    moments: Mapping[int, Moments] | None = None,
) -> tuple[Tensor, dict[int, Moments]]:
    """Apply the steps in order.

    Args:
        r: `(P, G)`.
        steps: from `read_steps`.
        reference: `(P, M)`, raw rewards of reference samples of the same prompts; the steps before the one that
            compares with them are applied to them too, with the same statistics.
        moments: position of a step -> its moments after the last rollout. This rollout enters them first.

    Returns:
        `(P, G)`, and the moments for the next call.

    Raises:
        ValueError: a step needs a reference and there is none, or as its function.
    """
    found = dict(moments or {})
    for position, (_, options, _) in enumerate(steps):
        function, takes = steps[position].row
        if takes == "reference":
            if reference is None:
                raise ValueError(f"{steps[position].name} needs rewards of reference samples")
            r = function(r, reference, **options)
            continue
        if takes == "moments":
            found[position] = update_moments(found.get(position, empty_moments()), r)
            options = {"stats": found[position], **options}
        r = function(r, **options)
        if reference is not None and takes != "batch":
            reference = function(reference, **options)
    return r, found
