"""Named compositions: the id of a published method, the function that computes it, and its published settings."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from diffalign.citations import systems
from diffalign.naming import nearest

F = TypeVar("F", bound=Callable[..., Any])
_recipes: dict[str, Recipe] = {}


class Recipe(NamedTuple):
    """A method of the ledger as a call: ``recipe(*tensors, **changes)`` is ``function`` with its published settings."""

    id: str
    function: Callable[..., Any]
    defaults: MappingProxyType[str, Any]

    def __call__(self, *args: Any, **changes: Any) -> Any:
        """Call the function; ``changes`` win over the published settings."""
        return self.function(*args, **{**self.defaults, **changes})

    @property
    def source(self) -> str:
        """Where the form was seen, empty if nowhere."""
        return systems()[self.id].source

    @property
    def confidence(self) -> str:
        """``checked``, ``second-hand``, ``known``, ``derived`` or ``unsure``."""
        return systems()[self.id].confidence


def recipe(id: str, **defaults: Any) -> Callable[[F], F]:
    """Register the decorated function under ``id`` with ``defaults``; several may stand above one function.

    Raises:
        ValueError: the id is taken, or the ledger does not know it.
    """
    if id in _recipes:
        raise ValueError(f"two recipes are named {id!r}")
    if id not in systems():
        raise ValueError(f"{id!r} is not in systems.csv")

    def register(function: F) -> F:
        _recipes[id] = Recipe(id, function, MappingProxyType(defaults))
        return function

    return register


def get(id: str) -> Recipe:
    """Return the recipe of a method.

    Raises:
        ValueError: no recipe has this id; the message names the nearest ones.
    """
    if id not in _recipes:
        hint = nearest(id, _recipes, count=3) or "."
        raise ValueError(f"no objective is named {id!r}{hint} diffalign.losses.recipes.names() lists them")
    return _recipes[id]


def names() -> list[str]:
    """Return the ids of all recipes, sorted."""
    return sorted(_recipes)
