"""Kinds of recipes: their calling conventions.

A kind fixes the names of the leading positional arguments, so that a trainer can call any recipe of a kind by name:
``recipes.get("simpo").apply({"logp_w": ..., "logp_l": ...})``. Further positional arguments are inputs of one method;
keyword arguments are settings, optional masks, and inputs without a default.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Kind(NamedTuple):
    """A calling convention.

    Attributes:
        name: as in :func:`~diffalign.losses.recipes.recipe`.
        call: the leading arguments, for documentation.
        returns: the result.
        first: regular expression that the comma-joined names of the positional arguments start with.
        exact: no further positional argument is allowed.
        masked: a keyword argument ``mask`` is required.
        loss: the result is minimised.
    """

    name: str
    call: str
    returns: str
    first: str
    exact: bool = False
    masked: bool = False
    loss: bool = True


# One row per kind. `r` is a log-ratio to the reference (a surrogate on images), `logp` a log-prob, `error` a denoising
# error; `_w` the winner and `_l` the loser, `_1` and `_2` an unordered pair.
_KINDS = [
    Kind("pair", "r_w, r_l or logp_w, logp_l or error_w, error_l: (B,) or (B, T), winner first",
         "(B,), per step (B, T)", r"(\w+)_w,\1_l|(\w+)_1,\2_2"),
    Kind("unpaired", "log_ratio (B,), desirable (B,) bool", "(B,), or (loss, state)", "log_ratio,desirable"),
    Kind("listwise", "log_ratio or logp (B, G) or (B, G, T), then labels or rewards (B, G)", "(B,)", "log_ratio|logp"),
    Kind("regression", "log_ratio (B,) or (B, T), then its targets", "like log_ratio", "log_ratio"),
    Kind("policy", "log_ratio, adv, *, mask: (B,) or (B, T)", "like log_ratio", "log_ratio,adv", True, True),
    Kind("policy_group", "log_ratio (B G,) or (B G, T), then rewards (B, G) or their replacement", "like log_ratio",
         "log_ratio|scores,old|passed"),
    Kind("off_policy", "logp (B,) or (B, T) of given samples, then their weights", "like logp", "logp"),
    Kind("forward_process", "value, value_old, x0, noise (B, ...), t (B,), adv (B,)", "(B,)",
         "value,value_old,x0,noise,t,adv", True),
    Kind("advantage", "rewards (B, G), or their replacement", "(B, G), per step (B, T)",
         "rewards|value|adv|belief|outcome|correct|utility|passed", loss=False),
    Kind("reward", "rewards or their components, any shape", "rewards", r"\w+", loss=False),
    Kind("reward_model", "score_w, score_l (B,), or (B, K) heads, features, distances; winner first", "(B,)",
         r"(\w+)_w,\1_l|difference|mean_w,mean_l|q,v|rewards|win_"),
    Kind("value", "prediction, target: any shape", "like the prediction", r"\w+,(target|labels|rewards)"),
    Kind("sft", "logp (B,) or (B, T), or log_ratio", "like the input", "logp|log_ratio"),
    Kind("distillation", "student, teacher: log-probs or logits", "per position", "student"),
    Kind("regularizer", "log_ratio, logp or entropy of the policy's own samples", "like the input",
         "log_ratio|logp|entropy|values"),
    Kind("constraint", "the constrained quantity, then its bound", "per method", r"\w+"),
    Kind("mask", "log_ratio, adv or entropy (B, T)", "(B, T) bool or weights", "log_ratio|entropy", loss=False),
    Kind("selection", "rewards, scores or margins of candidates", "indices, masks or weights", r"\w+", loss=False),
    Kind("weights", "gram (K, K) or products (K,) of gradients", "(K,)", "gram|products", loss=False),
]  # fmt: skip
KINDS = {kind.name: kind for kind in _KINDS}


def positional(function: Callable[..., Any]) -> list[str]:
    """Names of the positional arguments."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


def required(function: Callable[..., Any], settings: Sequence[str]) -> list[str]:
    """Names of keyword arguments that have neither a default nor a published setting."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in settings]


def tensors(function: Callable[..., Any], names: Sequence[str]) -> list[str]:
    """Arguments annotated as tensors, optional ones included."""
    parameters = inspect.signature(function).parameters
    return [name for name in names if Tensor.__name__ in str(parameters[name].annotation)]


def check_kind(function: Callable[..., Any], kind: str) -> None:
    """Check that the signature of a function fits its kind.

    Raises:
        ValueError: the kind is unknown, or the signature does not fit it.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}")
    convention, names = KINDS[kind], positional(function)
    fits = re.match(rf"(?:{convention.first})" + ("$" if convention.exact else r"(?=,|$|\w)"), ",".join(names))
    lacks_mask = convention.masked and "mask" not in inspect.signature(function).parameters
    if not fits or lacks_mask:
        raise ValueError(
            f"{function.__name__} is registered as {kind}, called with ({convention.call}), "
            f"but its arguments are ({', '.join(inspect.signature(function).parameters)})"
        )
