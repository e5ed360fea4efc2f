"""Values of configuration keys, read into the types that the keys declare."""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Literal

from diffalign.naming import nearest


def coerce(key: str, value: Any, hint: Any) -> Any:
    """The value in the annotated type: ints become floats, numbers in strings are read, anything else is an error.

    Args:
        key: its name, for the message.
        value: as YAML or the command line gave it.
        hint: a type, ``T | None``, ``Literal``, ``list[T]`` or ``dict[str, T]``.

    Raises:
        ValueError: the value does not fit.
    """
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "none":  # every union here is `... | None`, and YAML has no bare `none`
            return None
        return coerce(key, value, next(option for option in options if option is not type(None)))
    if origin is Literal:
        if value is False and "no" in options:  # YAML reads a bare `no` as false
            return "no"
        if value not in options:
            raise ValueError(
                f"{key} = {value!r} is not one of {', '.join(map(str, options))}{nearest(str(value), options)}"
            )
        return value
    if origin is list:
        items = value if isinstance(value, (list, tuple)) else [] if value == "none" else [value]
        return [coerce(key, item, options[0]) for item in items]
    if origin is dict:
        return _coerce_dict(key, value, options)
    return _coerce_scalar(key, value, hint)


def _coerce_dict(key: str, value: Any, options: tuple[Any, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a mapping; got {value!r}")
    inner = options[1]
    return {str(k): v if inner is Any else coerce(f"{key}.{k}", v, inner) for k, v in value.items()}


def _coerce_scalar(key: str, value: Any, hint: Any) -> Any:
    if hint in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        number = _number(value)  # a command line gives text
        if number is not None and hint is float:
            return float(number)
        if number is not None and number == int(number):
            return int(number)
    elif isinstance(value, hint) and hint not in (int, float):
        return value
    raise ValueError(f"{key} must be of type {hint.__name__}; got {value!r} ({type(value).__name__})")


def _number(value: int | float | str) -> int | float | None:
    """A finite number, or None; integers stay exact."""
    for read in (int, float):
        try:
            number = read(value) if isinstance(value, str) else value
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None
