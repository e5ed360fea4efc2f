"""Registry of policy objectives: functions of one shape, ``(log_ratio, adv, *, mask, ...) -> like log_ratio``.

Modules of this package whose name starts with ``policy`` define them; :func:`policy_objective` registers a function
under its name. A trainer takes ``objective: cispo``, and a new objective touches one file.

Shared conventions:

- ``log_ratio``: ``(B,)`` or ``(B, T)``, log-prob of the policy minus log-prob at rollout, per token or denoising step;
  the only input with a gradient.
- ``adv``: ``(B,)``, ``(B, 1)`` or ``(B, T)``, detached.
- ``mask``: shape of ``log_ratio``, 1 where valid; masked entries are 0 without a gradient.
- result: unreduced fp32 (fp64 kept), to be minimised. Objectives on sequences give every valid token the row's value,
  so that the row mean is the sequence's loss.

Ratios are formed from log-ratios clamped to ``+-max_log_ratio``, 20 unless stated otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from torch import Tensor

from diffalign.losses.common import check_floating, expand_rows, keep

F = TypeVar("F", bound=Callable[..., Tensor])
MAX_LOG_RATIO = 20.0
_objectives: dict[str, Callable[..., Tensor]] = {}


def objective_inputs(log_ratio: Tensor, adv: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return log-ratio and advantage in one shape and in fp32 (fp64 kept), masked entries 0, the advantage detached.

    Raises:
        ValueError: log-ratios are integers, or a shape does not fit.
    """
    check_floating(log_ratio=log_ratio)
    return keep(log_ratio, mask), keep(expand_rows(adv.detach(), log_ratio), mask)


def bounded_ratio(log_ratio: Tensor, max_log_ratio: float = MAX_LOG_RATIO) -> Tensor:
    """Return ``exp(log_ratio)`` with the log-ratio clamped to ``+-max_log_ratio``."""
    return log_ratio.clamp(-max_log_ratio, max_log_ratio).exp()


def policy_objective(function: F) -> F:
    """Register a function under its own name.

    Raises:
        ValueError: its arguments are not ``(log_ratio, adv, *, mask, ...)``, or another module has the name.
    """
    name, parameters = function.__name__, inspect.signature(function).parameters
    positional = [p.name for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    if positional != ["log_ratio", "adv"] or "mask" not in parameters:
        raise ValueError(
            f"{name} must have the arguments (log_ratio, adv, *, mask, ...), got ({', '.join(parameters)})"
        )
    if name in _objectives and _objectives[name].__module__ != function.__module__:
        raise ValueError(f"two policy objectives are named {name!r}")
    _objectives[name] = function
    return function


def policy_objectives() -> dict[str, Callable[..., Tensor]]:
    """Return all policy objectives by name, sorted: ``policy_objectives()["clip"](log_ratio, adv, eps_low=0.2)``."""
    package = __name__.rpartition(".")[0]
    for module in iter_modules(import_module(package).__path__):
        if module.name.startswith("policy"):
            import_module(f"{package}.{module.name}")
    return dict(sorted(_objectives.items()))


def extra_inputs(objective: Callable[..., Tensor]) -> list[str]:
    """Return the names of the keyword arguments without a default: tensors that the caller must give besides
    ``log_ratio`` and ``adv`` (``logp``, ``kl``, ...).
    """
    parameters = inspect.signature(objective).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
