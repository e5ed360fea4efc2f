"""Declaration of configuration keys: default, help text, range, section of the help, other names."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Any


def key(
    default: Any,
    text: str,
    *,
    above: float | None = None,
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    section: str | None = None,
    aliases: Sequence[str] = (),
    path: bool = False,
    launch: bool = False,
) -> Any:
    """A dataclass field that is a configuration key.

    Args:
        default: its default.
        text: one line for `--help`.
        above: the value must be larger than this.
        low: smallest value.
        high: largest value.
        below: the value must be smaller than this.
        section: title of the section of the help that begins with this key.
        aliases: other names that are understood; a saved configuration has the field's own name.
        path: a place on disk: `~` and `$NAME` are expanded.
        launch: belongs to one launch (overwriting, resuming): never saved, and not taken from a file.
    """
    metadata = {
        "help": text,
        "range": (above, low, high, below),
        "section": section,
        "aliases": tuple(aliases),
        "path": path,
        "launch": launch,
    }
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def known_keys(cls: type[Any]) -> tuple[str, ...]:
    """The keys of a configuration class, in order of declaration."""
    return tuple(f.name for f in dataclasses.fields(cls))


def hints(cls: type[Any]) -> dict[str, Any]:
    """Key -> annotated type."""
    return typing.get_type_hints(cls)


def aliases(cls: type[Any]) -> dict[str, str]:
    """Other name -> key."""
    return {alias: f.name for f in dataclasses.fields(cls) for alias in f.metadata.get("aliases", ())}


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a key."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def check_range(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuse a number outside the declared range; None always passes.

    Raises:
        ValueError: the key, the value, and the range.
    """
    above, low, high, below = field.metadata.get("range", (None,) * 4)
    if value is None or (above, low, high, below) == (None,) * 4:
        return
    fits = (
        (above is None or value > above)
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (below is None or value < below)
    )
    if not fits:
        raise ValueError(f"{field.name} = {value} must {_range_text(above, low, high, below)}")


def _range_text(above: float | None, low: float | None, high: float | None, below: float | None) -> str:
    if (above, high, below) == (0, None, None) and low is None:
        return "be positive"
    if (low, high, below) == (0, None, None) and above is None:
        return "not be negative"
    start = f"({above:g}" if above is not None else f"[{-math.inf if low is None else low:g}"
    end = f"{below:g})" if below is not None else f"{math.inf if high is None else high:g}]"
    return f"lie in {start}, {end}"
