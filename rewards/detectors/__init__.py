"""Judges of benchmark suites: detectors, colour classifiers, question answering, depth, similarity.

One file per model, found by its name. A file offers a judge for a role (`diffalign.evaluation.judges.Judges`: detect,
color, yes, answer, answer_probability, depth, similarity) by a function of that role's name, which takes the model's
options and returns the callable. Files are imported when they are asked for; none imports a model library before its
function is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, cast

import torch

from diffalign.evaluation.judges import Detector
from diffalign.naming import unknown
from diffalign.rewards import registry
from diffalign.rewards.detectors._cached import cached, described
from diffalign.rewards.detectors._own import OwnJudge
from diffalign.rewards.detectors._reward_scorer import RewardScorer

__all__ = ["cached", "described", "detector", "judge", "names"]

PLACED = "placement"
"""Parameter of the factories whose model can be put on a device."""


def detector(name: str, **options: Any) -> Detector:
    """The detector of a name: `mask2former`, `owlv2`, `grounding_dino`, `shapes`, `recorded`, or `file.py:function`.

    Args:
        name: See `judge`.
        **options: See `judge`.

    Raises:
        ValueError: See `judge`.
    """
    return cast(Detector, judge("detect", name, **options))


def judge(role: str, name: str, *, device: str | None = None, **options: Any) -> Callable[..., Any]:
    """The judge of a role and name.

    Args:
        role: A field of `diffalign.evaluation.judges.Judges`.
        name: One of `names(role)` (hyphens and underscores alike), or `path/to/file.py:function`, whose function is
            the judge itself, or with options a factory that takes them and returns the judge.
        device: Where a model runs; judges without a model on this machine have no use for it.
        **options: The model's options; every model has `model` (hub id or local folder), `dtype`, `batch_size` and
            `revision`.

    Raises:
        ValueError: If the name is unknown (the nearest is named), or does not take the options.
        MissingWeights: If files of the model are not to be had.
    """
    if ".py:" in name:
        return OwnJudge(role, name, options)
    if role == "score":
        scorer = RewardScorer(registry.get(name, **options), name, options)
        return scorer.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    known = names(role)
    plain = name.replace("-", "_")
    if plain not in known:
        raise unknown(f"judge for the role {role}", name, [*known, "file.py:function"])
    factory = getattr(_module(plain), role)
    if device is not None and PLACED in inspect.signature(factory).parameters:
        options = {"device": device, **options}
    return cast(Callable[..., Any], _call(factory, name, options))


def names(role: str) -> list[str]:
    """Names of the judges of a role, sorted; scorers of images are the registered rewards."""
    if role == "score":
        return registry.names()
    files = (module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    return sorted(name for name in files if hasattr(_module(name), role))


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")


def _call(factory: Callable[..., Any], name: str, options: dict[str, Any]) -> Any:
    """Calls a factory; options that it does not take are the user's mistake."""
    signature = inspect.signature(factory)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ValueError(f"judge {name!r} does not take {options}: {error}; it takes {signature}") from error
    return factory(**options)
