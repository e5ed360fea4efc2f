"""The contract of a reward, and the wrapper that makes a plain function fulfil it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, Self, get_args

import torch
from torch import Tensor

from diffalign.rewards.outputs import as_scores

Scope = Literal["pointwise", "pairwise", "group"]
Metadata = Mapping[str, Any]

NEEDS = frozenset({"prompt", "metadata", "reference_images", "source_image", "group_ids"})
"""Inputs that a reward may need beside the images."""


class ScoringFailure(Exception):
    """Raised by a reward that cannot score a batch for a reason outside the run (a judge that does not answer).

    `diffalign.rewards.score` turns it into NaN for the batch and logs it. Any other exception is a wiring error and
    stops the run. A reward that fails for some samples only returns NaN for those instead.
    """


class Reward(Protocol):
    """A scorer of images. Subclass it for the defaults, or define the same attributes.

    Calling contract, checked by `diffalign.rewards.score`: images are not changed in place; the result has one finite
    value per sample or NaN for "could not score" (never 0); the same input gives the same output; a pointwise reward
    of a sample does not depend on its neighbours in the batch. Whether gradients are tracked is the caller's choice.

    Attributes:
        name: Unique; contains variant and judge wherever they change the scale.
        scope: `pointwise` scores each image alone; `pairwise` and `group` compare the images of one prompt, so that
            whole groups have to be scored in one call.
        differentiable: Promises a gradient with respect to images that require one.
        range: Nominal (low, high) of the score for logs, None where it is open.
        higher_is_better: False for a distance or a count of defects: `diffalign.rewards.get` negates such a reward and
            its range, so that higher is better everywhere else.
        needs: Subset of `NEEDS`, for error messages and listings.
        licence: Licence of the weights, empty where there are none.
        weights: The published files that it loads, as (hub id, file); empty where there are none.
        environment: Environment variables that have to be set for it to work, such as a server's address.

    `licence`, `weights` and `environment`, like the rest but the name, belong to the class, so that a listing can show
    them without loading a model.
    """

    name: str
    scope: Scope = "pointwise"
    differentiable: bool = False
    range: tuple[float, float] | None = None
    higher_is_better: bool = True
    needs: frozenset[str] = frozenset()
    licence: str = ""
    weights: tuple[tuple[str, str], ...] = ()
    environment: tuple[str, ...] = ()

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores images.

        Args:
            images: `(B, 3, H, W)` float in [0, 1].
            prompts: `B` prompts.
            metadata: `B` records of the prompts.

        Returns:
            `(B,)` float32 scores on the device of the images.
        """
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves weights, if any; the result is on the device of the images."""
        return self


class FunctionReward(Reward):
    """A plain function `(images, prompts, metadata) -> scores` as a reward.

    It may return what `diffalign.rewards.outputs.as_scores` reads: a tensor `(B,)`, or `B` numbers with None for
    "could not score". Attributes of `Reward` set on the function (`function.differentiable = True`) count.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        scope: Scope | None = None,
        differentiable: bool | None = None,
        range: tuple[float, float] | None = None,
        needs: Collection[str] | None = None,
        higher_is_better: bool | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Wraps the function.

        Args:
            function: Takes images `(B, 3, H, W)`, prompts and metadata by position.
            name: Name in logs; default the function's own.
            scope: See `Reward`; default, like that of the next four, the function's attribute, then that of `Reward`.
            differentiable: See `Reward`.
            range: See `Reward`.
            needs: See `Reward`.
            higher_is_better: See `Reward`.
            arguments: Keyword arguments passed on at every call.

        Raises:
            ValueError: If the function cannot be called that way.
        """
        given = {
            "scope": scope, "differentiable": differentiable, "range": range, "higher_is_better": higher_is_better,
        }  # fmt: skip
        for key, value in given.items():
            setattr(self, key, value if value is not None else getattr(function, key, getattr(Reward, key)))
        self.needs = frozenset(needs if needs is not None else getattr(function, "needs", ()))
        declared = getattr(function, "__name__", None) or getattr(function, "name", type(function).__name__)
        self.name = name or str(declared)
        self._function = function
        self._arguments = dict(arguments or {})
        _check_callable(function, self.name, self._arguments)

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores images `(B, 3, H, W)`; see `Reward`."""
        returned = self._function(images, prompts, metadata, **self._arguments)
        return as_scores(self.name, returned, images.device)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the weights of a callable object that has such a method."""
        if hasattr(self._function, "to"):
            self._function.to(device, dtype)
        return self


def _check_callable(function: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a wrong signature when the reward is made, not after the first rollout."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin without a signature can only be tried
        return
    try:
        signature.bind(None, [], [], **arguments)
    except TypeError as error:
        raise ValueError(
            f"reward {name!r} cannot be called as {name}(images, prompts, metadata"
            f"{''.join(f', {key}=...' for key in arguments)}): {error}; its signature is {name}{signature}"
        ) from error


def check_reward(reward: Any) -> Reward:
    """Returns the object if it carries the attributes of a reward.

    Raises:
        ValueError: If an attribute is missing or has a value outside its choices.
    """
    missing = [key for key in ("name", "scope", "differentiable", "range", "needs") if not hasattr(reward, key)]
    if missing or not callable(reward):
        raise ValueError(
            f"{type(reward).__name__} is no reward: it lacks {', '.join(missing) or '__call__'}; subclass "
            "diffalign.rewards.Reward or give a function (images, prompts, metadata) -> scores"
        )
    if reward.scope not in get_args(Scope):
        raise ValueError(f"reward {reward.name!r} has scope {reward.scope!r}; valid: {', '.join(get_args(Scope))}")
    if not set(reward.needs) <= NEEDS:
        raise ValueError(
            f"reward {reward.name!r} needs {sorted(reward.needs)}; valid: a set of {', '.join(sorted(NEEDS))}"
        )
    for key in ("differentiable", "higher_is_better"):
        if not isinstance(getattr(reward, key, True), bool):
            raise ValueError(f"reward {reward.name!r} has {key} = {getattr(reward, key)!r}; valid: True, False")
    _check_range(reward)
    return reward


def _check_range(reward: Any) -> None:
    """A range is None or (low, high)."""
    try:
        sound = reward.range is None or (len(reward.range) == 2 and float(reward.range[0]) < float(reward.range[1]))
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"reward {reward.name!r} has range {reward.range!r}; valid: (low, high), or None where open")
