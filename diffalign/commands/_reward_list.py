"""`diffalign rewards list` and `show`: what plugins say about themselves, without loading a model."""

from __future__ import annotations

import inspect
import shutil
from collections import Counter
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from diffalign.commands._tables import table
from diffalign.naming import nearest

if TYPE_CHECKING:
    from diffalign.rewards import Reward
    from diffalign.rewards.registry import Entry

HEAD = ["reward", "scope", "gradient", "range", "weights", "needs"]
WIDTH = 100
"""Characters in a line where the output is not a terminal."""
IMPORT_FAILURES = (ImportError, AttributeError)
"""A plugin of another distribution that does not import must not hide the others."""
SCOPES = {
    "pointwise": "scores each image alone",
    "pairwise": "compares the images of one prompt, two at a time",
    "group": "scores the images of one prompt together",
}


def show_all() -> int:
    """Prints the table; exit status 1 when two distributions declare one name."""
    from diffalign.rewards import registry

    entries = registry.entries()
    print(table(HEAD, [_row(entry) for entry in entries], shutil.get_terminal_size((WIDTH, 24)).columns))
    others = [f"{entry.name} ({entry.distribution})" for entry in entries if entry.distribution != "diffalign"]
    if others:
        print(f"from other distributions: {', '.join(others)}")
    print("`diffalign rewards show NAME`: its arguments, weights and licence")
    counts = Counter(entry.name for entry in entries)
    twice = [name for name in counts if counts[name] > 1]
    for name in twice:
        owners = " and ".join(f"{entry.distribution} ({entry.value})" for entry in entries if entry.name == name)
        print(f"{name} is declared by {owners}: neither is used until one of them is uninstalled")
    return 1 if twice else 0


def show_one(name: str) -> int:
    """Prints everything that one reward says about itself; exit status 1 when it does not import.

    Raises:
        ValueError: no reward of this name; the nearest is named.
    """
    from diffalign.rewards import registry

    entries = [entry for entry in registry.entries() if entry.name == name]
    if not entries:
        hint = nearest(name, registry.names())
        raise ValueError(f"unknown reward {name!r}{hint or '; `diffalign rewards list` names them all'}")
    for entry in entries:
        print(f"{entry.name}: {entry.value}, from {entry.distribution}")
        try:
            made = registry.declaration(entry)
        except IMPORT_FAILURES as error:
            print(f"it does not import: {error}")
            return 1
        print("\n".join(_details(entry, made)))
    return 0


def _row(entry: Entry) -> list[str]:
    from diffalign.rewards import registry

    try:
        made = registry.declaration(entry)
    except IMPORT_FAILURES as error:
        return [entry.name, *["?"] * (len(HEAD) - 2), f"does not import: {error}"]
    needs = ", ".join(sorted(made.needs)) or "-"
    return [entry.name, made.scope, "yes" if made.differentiable else "no", _range(made), _weights(made), needs]


def _details(entry: Entry, made: type[Reward]) -> list[str]:
    """One line per property, under the first paragraph of the documentation."""
    from diffalign.rewards import registry
    from diffalign.rewards.weights import absent

    factory = EntryPoint(entry.name, entry.value, registry.GROUP).load()
    text = inspect.cleandoc(factory.__doc__ or made.__doc__ or "").split("\n\n")[0]
    missing = set(absent(made.weights)) if made.weights else set()
    files = [f"{' '.join(file)} ({'absent' if file in missing else 'present'})" for file in made.weights]
    parameters = inspect.signature(factory).parameters.values()
    arguments = [str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters]
    properties = {
        "scope": [f"{made.scope}: {SCOPES.get(made.scope, '')}"],
        "gradient": ["yes" if made.differentiable else "no"],
        "range": [_range(made)],
        "needs": sorted(made.needs),
        "arguments": arguments,
        "weights": files,
        "licence": [made.licence] if made.licence else [],
        "environment": list(made.environment),
    }
    lines = [
        f"  {key if i == 0 else '':<13}{value}"
        for key, values in properties.items()
        for i, value in enumerate(values or ["-"])
    ]
    return [f"  {line}" for line in text.splitlines()] + lines


def _range(made: type[Reward]) -> str:
    if not isinstance(made.range, tuple):
        return "unbounded"
    return f"{made.range[0]:g} to {made.range[1]:g}"


def _weights(made: type[Reward]) -> str:
    """Whether the published files are in the hub's cache."""
    from diffalign.rewards.weights import absent

    return "-" if not made.weights else "absent" if absent(made.weights) else "present"
