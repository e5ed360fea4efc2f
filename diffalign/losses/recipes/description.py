"""Description of a recipe for the command line and the index page."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from diffalign.citations import systems
from diffalign.losses.recipes.kinds import KINDS
from diffalign.losses.recipes.registry import Recipe

PACKAGE = Path(__file__).resolve().parents[2]


def _value(value: Any) -> str:
    """A default as Python code; functions by their name."""
    return str(getattr(value, "__name__", None) or repr(value))


def signature(recipe: Recipe) -> str:
    """Return the signature with published settings and defaults.

    ``simpo(logp_w, logp_l, *, mask_w=None, mask_l=None, beta=2.0, gamma=0.5)``. Arguments without ``=`` are required.
    """
    words: list[str] = []
    for parameter in inspect.signature(recipe.function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        if parameter.kind is parameter.VAR_KEYWORD:
            known = inspect.signature(recipe.function).parameters
            words += [f"{name}={_value(value)}" for name, value in recipe.defaults.items() if name not in known]
            continue
        default = recipe.defaults.get(parameter.name, parameter.default)
        words.append(parameter.name if default is parameter.empty else f"{parameter.name}={_value(default)}")
    return f"{recipe.id}({', '.join(words)})"


def place(recipe: Recipe) -> tuple[str, int]:
    """Return the source file, relative to the folder that holds the package, and the line of the function."""
    function = inspect.unwrap(recipe.function)
    path = Path(inspect.getsourcefile(function) or "")
    return path.resolve().relative_to(PACKAGE.parent).as_posix(), inspect.getsourcelines(function)[1]


def usage(recipe: Recipe) -> str:
    """Return a Python call with the required inputs, and the reduction to a scalar if it is not a mean."""
    given = [*recipe.inputs, *(f"{name}={name}" for name in recipe.required)]
    masked = recipe.reduce is not None and "mask" in inspect.signature(recipe.function).parameters
    result = "loss" if KINDS[recipe.kind].loss else recipe.kind
    call = f'{result} = recipes.get("{recipe.id}")({", ".join([*given, *["mask=mask"] * masked])})'
    if recipe.reduce is None:
        return f"from diffalign.losses import recipes; {call}"
    name, parameters = recipe.reduce.__name__, inspect.signature(recipe.reduce).parameters.values()
    rest = "".join(f", {p.name}={p.name}" for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty)
    return f"from diffalign.losses import {name}, recipes; {call}; loss = {name}(loss, mask{rest})"


def describe(recipe: Recipe) -> dict[str, Any]:
    """Return all properties of a recipe as plain values for JSON."""
    row, kind = systems()[recipe.id], KINDS[recipe.kind]
    file, line = place(recipe)
    return {
        "name": recipe.id,
        "aliases": list(recipe.aliases),
        "kind": recipe.kind,
        "called_with": kind.call,
        "returns": kind.returns,
        "formula": recipe.formula,
        "signature": signature(recipe),
        "inputs": recipe.inputs,
        "required": recipe.required,
        "settings": {
            name: value if isinstance(value, int | float) else _value(value) for name, value in recipe.defaults.items()
        },
        "reduction": recipe.reduce.__name__ if recipe.reduce else "mean" if kind.loss else None,
        "title": row.title,
        "arxiv": row.arxiv,
        "source": row.source,
        "confidence": row.confidence,
        "file": file,
        "line": line,
        "usage": usage(recipe),
        "text": inspect.getdoc(recipe.function) or "",
    }
