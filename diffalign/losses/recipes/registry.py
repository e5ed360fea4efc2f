"""Named compositions: the id of a published method, the function that computes it, and its published settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from diffalign.citations import systems
from diffalign.losses.recipes.kinds import KINDS, check_kind, positional, required
from diffalign.naming import nearest

F = TypeVar("F", bound=Callable[..., Any])
_recipes: dict[str, Recipe] = {}
_spellings: dict[str, str] = {}  # normalised name or alias -> id


class Recipe(NamedTuple):
    """A method of the ledger as a call: ``recipe(*tensors, **changes)`` is ``function`` with its published settings.

    Attributes:
        id: name in the ledger.
        function: the function.
        defaults: published settings, by keyword.
        kind: name of its calling convention, a key of :data:`~diffalign.losses.recipes.KINDS`.
        aliases: other names that :func:`get` accepts.
        reduce: the reduction of the method's code, ``(loss, mask) -> scalar``; None where it is a plain mean.
    """

    id: str
    function: Callable[..., Any]
    defaults: MappingProxyType[str, Any]
    kind: str
    aliases: tuple[str, ...] = ()
    reduce: Callable[..., Tensor] | None = None

    def __call__(self, *args: Any, **changes: Any) -> Any:
        """Call the function; ``changes`` override the published settings."""
        return self.function(*args, **{**self.defaults, **changes})

    def apply(self, tensors: Mapping[str, Any], **changes: Any) -> Any:
        """Call the function with the ``tensors`` it has arguments for; ``changes`` override the published settings.

        Args:
            tensors: by argument name, as the kind defines them; others are ignored.
            changes: settings.

        Raises:
            ValueError: an input is missing.
        """
        missing = [name for name in (*self.inputs, *self.required) if name not in tensors and name not in changes]
        if missing:
            raise ValueError(f"{self.id} ({self.kind}) needs {', '.join(missing)}; given are {', '.join(tensors)}")
        chosen = {name: tensors[name] for name in inspect.signature(self.function).parameters if name in tensors}
        return self.function(**{**self.defaults, **chosen, **changes})

    @property
    def inputs(self) -> list[str]:
        """Names of the positional arguments, in order."""
        return positional(self.function)

    @property
    def required(self) -> list[str]:
        """Names of required keyword arguments: without default and published setting."""
        return required(self.function, list(self.defaults))

    @property
    def formula(self) -> str:
        """The formula in plain text: the paragraph ``Formula:`` of the docstring, else its first quoted term."""
        doc = inspect.getdoc(self.function) or ""
        found = re.search(r"^Formula: (.*?)(?:\n\s*\n|\Z)", doc, re.M | re.S)
        found = found or re.match(r"Return ``(.*?)``", doc, re.S)
        return " ".join(found.group(1).split()) if found else ""

    @property
    def source(self) -> str:
        """Source of the form, empty if none."""
        return systems()[self.id].source

    @property
    def confidence(self) -> str:
        """``checked``, ``second-hand``, ``known``, ``derived`` or ``unsure``."""
        return systems()[self.id].confidence


def spelling(name: str) -> str:
    """Return a name without case, spaces, dots, hyphens and underscores: ``Dr. GRPO`` and ``dr_grpo`` are the same
    name.
    """
    return re.sub(r"[\s._-]", "", name).casefold()


def recipe(
    id: str, kind: str, *, aliases: tuple[str, ...] = (), reduce: Callable[..., Tensor] | None = None, **defaults: Any
) -> Callable[[F], F]:
    """Register the decorated function under ``id`` with ``defaults``; can be stacked.

    Args:
        id: name in the ledger.
        kind: name of its calling convention; the signature is checked against it.
        aliases: other names of this method only.
        reduce: reduction of the method's code if not the plain mean.
        defaults: published settings.

    Raises:
        ValueError: a name is taken, the ledger does not know the id, the kind is unknown, the signature does not fit
            the kind, or a default is no argument of the function.
    """
    for name in (id, *aliases):
        owner = _spellings.get(spelling(name))
        if owner in _recipes:
            raise ValueError(f"two recipes are named {name!r}: {owner} and {id}")
    if id not in systems():
        raise ValueError(f"{id!r} is not in systems.csv")

    def register(function: F) -> F:
        check_kind(function, kind)
        try:
            inspect.signature(function).bind_partial(**defaults)
        except TypeError as error:
            raise ValueError(f"recipe {id!r}: {error}") from error
        _recipes[id] = Recipe(id, function, MappingProxyType(defaults), kind, aliases, reduce)
        _spellings.update({spelling(name): id for name in (id, *aliases)})
        return function

    return register


def get(name: str) -> Recipe:
    """Return the recipe of a method: its exact id or a registered alias, in any case and with any separators.

    Raises:
        ValueError: no recipe has this name; the message names the nearest ones.
    """
    id = _spellings.get(spelling(name))
    if id not in _recipes:
        every = [*_recipes, *(alias for known in _recipes.values() for alias in known.aliases)]
        hint = nearest(name, every, count=3)
        raise ValueError(f"no objective is named {name!r}{hint} (recipes.names() lists all)")
    return _recipes[str(id)]


def names(kind: str | None = None) -> list[str]:
    """Return the ids of all recipes, or of one kind, sorted.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}{nearest(kind, KINDS)} (known: {', '.join(KINDS)})")
    return sorted(id for id, known in _recipes.items() if kind in (None, known.kind))
