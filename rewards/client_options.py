"""Arguments of rewards that ask a server: numbers in their range, and no secret in a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from diffalign.naming import nearest

SECRETS = re.compile(r"key|token|secret|password|authorization|bearer", re.IGNORECASE)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LEAST = {"concurrency": 1, "batch_size": 1, "retries": 0, "backoff": 0}


def check_options(variables: Mapping[str, str], timeout: float, **counts: float) -> None:
    """Checks a client's options.

    Args:
        variables: Names of environment variables by argument.
        timeout: Seconds, above 0.
        **counts: Numbers by argument, each at least as in `LEAST`.

    Raises:
        ValueError: If a variable's name is none (its content, say), or a number is outside its range.
    """
    for name, variable in variables.items():
        if not VARIABLE.fullmatch(variable):
            raise ValueError(f"{name} is the name of an environment variable, not its content")
    given = {"timeout": timeout, **counts}
    numbers = all(isinstance(value, int | float) for value in given.values())
    if not numbers or not timeout > 0 or not all(value >= LEAST[name] for name, value in counts.items()):
        rules = ", ".join(f"{name} >= {LEAST[name]}" for name in counts)
        raise ValueError(f"timeout > 0, {rules}; got {', '.join(f'{name} {value}' for name, value in given.items())}")


def refuse_unknown(unknown: Mapping[str, object], known: Sequence[str], key_env: str, what: str = "key") -> None:
    """Raises a ValueError on arguments that do not exist; a secret among them is never repeated."""
    for name in unknown:
        if SECRETS.search(name):
            raise ValueError(
                f"{name} does not belong into a configuration, which is saved with every run: put the {what} into the "
                f"environment variable {key_env} (or name another one with {what}_env)"
            )
        raise ValueError(f"unknown argument {name!r}{nearest(name, known) or '.'} Valid: {', '.join(known)}")
