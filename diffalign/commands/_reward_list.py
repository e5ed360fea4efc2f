"""`diffalign rewards list`: what each plugin says of itself, without making one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from diffalign.commands._tables import table

if TYPE_CHECKING:
    from diffalign.rewards import Reward
    from diffalign.rewards.registry import Entry

HEAD = ["reward", "scope", "gradient", "range", "needs", "files", "licence of the weights", "from"]


def run() -> int:
    """Prints the table; exit status 1 when two distributions declare one name."""
    from diffalign.rewards import registry

    entries = registry.entries()
    print(table(HEAD, [_row(entry) for entry in entries]))
    counts = Counter(entry.name for entry in entries)
    twice = [name for name in counts if counts[name] > 1]
    for name in twice:
        owners = " and ".join(f"{entry.distribution} ({entry.value})" for entry in entries if entry.name == name)
        print(f"{name} is declared by {owners}: neither is used until one of them is uninstalled")
    return 1 if twice else 0


def _row(entry: Entry) -> list[str]:
    from diffalign.rewards import registry

    try:
        made = registry.declaration(entry)
    except (ImportError, AttributeError) as error:  # a plugin of another distribution must not hide the others
        return [entry.name, *["?"] * (len(HEAD) - 2), f"{entry.distribution} (does not import: {error})"]
    needs = ", ".join(sorted(made.needs)) or "-"
    return [
        entry.name, made.scope, "yes" if made.differentiable else "no", _range(made), needs, _files(made),
        made.licence or "-", entry.distribution,
    ]  # fmt: skip


def _range(made: type[Reward]) -> str:
    if not isinstance(made.range, tuple):
        return "open"
    return f"{made.range[0]:g} to {made.range[1]:g}"


def _files(made: type[Reward]) -> str:
    """Whether the published files are in the hub's cache."""
    from diffalign.rewards.weights import absent

    if not made.weights:
        return "-"
    missing = absent(made.weights)
    if not missing:
        return "present"
    first = " ".join(missing[0])
    return f"absent: {first}" if len(missing) == 1 else f"{len(missing)} of {len(made.weights)} absent: {first}, ..."
