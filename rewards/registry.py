"""Makes rewards from names, files and callables.

Names are entry points of the group `diffalign.rewards`, whose value is a factory `(**cfg) -> Reward`; any distribution
may declare them. Built-in rewards use the same mechanism: they are read from the installed metadata, or, where the
package runs from a checkout, from its `pyproject.toml` (metadata of an editable install goes stale when that file
changes, and a bare checkout has none). Listing reads metadata only; a plugin's module is imported when its name is
first used.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from diffalign.naming import nearest
from diffalign.rewards.base import FunctionReward, Reward, check_reward
from diffalign.rewards.files import load_function
from diffalign.rewards.pairs import PairwiseReward
from diffalign.rewards.wrapped import LowerIsBetter

GROUP = "diffalign.rewards"


class Entry(NamedTuple):
    """A registered reward, not yet imported: its name, `module:factory`, and the distribution that declares it."""

    name: str
    value: str
    distribution: str


def _checkout_entries(pyproject: Path) -> list[Entry] | None:
    """Entries of the checkout that this package runs from, None if it runs from an installation."""
    if not pyproject.is_file():
        return None
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") != "diffalign":
        return None
    declared = project.get("entry-points", {}).get(GROUP, {})
    return [Entry(name, value, "diffalign") for name, value in declared.items()]


def entries() -> list[Entry]:
    """All registered rewards by name; a name that two distributions declare is listed twice."""
    installed = {
        Entry(point.name, point.value, point.dist.name if point.dist else "unknown")
        for point in metadata.entry_points(group=GROUP)
    }
    own = _checkout_entries(Path(__file__).absolute().parents[2] / "pyproject.toml")
    if own is not None:
        installed = {entry for entry in installed if entry.distribution != "diffalign"} | set(own)
    return sorted(installed)


def names() -> list[str]:
    """Names that `get` understands, sorted."""
    return sorted({entry.name for entry in entries()})


def _find(name: str) -> Entry:
    """The one entry of a name."""
    everything = entries()
    found = [entry for entry in everything if entry.name == name]
    if not found:
        known = sorted({entry.name for entry in everything})
        raise ValueError(
            f"unknown reward {name!r}{nearest(name, known) or '.'} Registered: {', '.join(known)}; or give "
            "'file.py:function' or a function"
        )
    if len(found) > 1:
        owners = " and ".join(f"{entry.distribution} ({entry.value})" for entry in found)
        raise ValueError(f"reward {name!r} is declared by {owners}; uninstall one of them, or use 'file.py:function'")
    return found[0]


def declaration(entry: Entry) -> type[Reward]:
    """The class of an entry, which has its scope, range, needs, licence and weights, without making the reward.

    Of a factory function it is the class in its return annotation; without one, `Reward` with its defaults. Imports the
    plugin's module, loads no weights.
    """
    factory = metadata.EntryPoint(entry.name, entry.value, GROUP).load()
    made = factory if isinstance(factory, type) else get_type_hints(factory).get("return")
    return made if isinstance(made, type) and hasattr(made, "scope") else Reward


def _make(factory: Callable[..., Any], label: str, cfg: dict[str, Any]) -> Any:
    """Calls a factory; arguments that it does not take are the user's mistake."""
    signature = inspect.signature(factory)
    try:
        signature.bind(**cfg)
    except TypeError as error:
        raise ValueError(f"reward {label!r} does not take {cfg}: {error}; it takes {signature}") from error
    return factory(**cfg)


def as_reward(source: Any, cfg: dict[str, Any] | None = None, *, label: str | None = None) -> Reward:
    """Makes a reward from an object.

    Args:
        source: A reward, a pairwise judge (an object with `compare`), a class of either, or a plain function.
        cfg: Keyword arguments of the class or function.
        label: Name for error messages and, for a function, for logs.

    Raises:
        ValueError: If it is none of these, or cannot be called as one.
    """
    cfg = cfg or {}
    if isinstance(source, type):
        return as_reward(_make(source, label or source.__name__, cfg))
    if hasattr(source, "compare"):
        _refuse(cfg, source)
        return PairwiseReward(source)
    if hasattr(source, "scope") and not inspect.isroutine(source):
        _refuse(cfg, source)
        return _higher_is_better(check_reward(source))
    if callable(source):
        return _higher_is_better(check_reward(FunctionReward(source, name=label, arguments=cfg)))
    raise ValueError(
        f"a reward is a name, 'file.py:function' or a callable, not {type(source).__name__}; registered names: "
        f"{', '.join(names())}"
    )


def _higher_is_better(reward: Reward) -> Reward:
    """The reward, negated if it declares that lower is better."""
    return reward if getattr(reward, "higher_is_better", True) else LowerIsBetter(reward)


def _refuse(cfg: dict[str, Any], source: object) -> None:
    """An object that is already made takes no arguments."""
    if cfg:
        raise ValueError(f"{type(source).__name__} is already made and takes no arguments; given: {sorted(cfg)}")


def get(spec: str | Callable[..., Any] | Reward, **cfg: Any) -> Reward:
    """Makes the reward of a specification.

    Args:
        spec: A registered name (`names()`), the same with the first argument of its factory behind a colon
            (`remote:hpsv2.1`), `path/to/file.py:function` (a function or a class in that file), a callable
            `(images, prompts, metadata) -> scores`, or a reward.
        **cfg: Keyword arguments: for a name its factory's, for a function those passed on at every call.

    Raises:
        ValueError: If the name is unknown (the nearest is named) or declared twice, the file or function is absent, or
            the arguments or the signature do not fit.
    """
    if not isinstance(spec, str):
        return as_reward(spec, cfg)
    if ".py:" in spec:
        return as_reward(load_function(spec), cfg)
    name, colon, first = spec.partition(":")
    entry = _find(name)
    factory = metadata.EntryPoint(entry.name, entry.value, GROUP).load()
    return as_reward(_make(factory, spec, _with_first(factory, spec, first, cfg) if colon else cfg))


def listed(sources: Any) -> list[Any]:
    """One reward, or several, as a list: a name alone is not a list of letters."""
    return list(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]


def _with_first(factory: Callable[..., Any], spec: str, first: str, cfg: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with the text behind the colon as the first."""
    key = next(iter(inspect.signature(factory).parameters), None)
    if key is None or key in cfg:
        reason = "takes no argument" if key is None else f"is given {key} twice: behind the colon and as an argument"
        raise ValueError(f"reward {spec!r} {reason}")
    return {key: first, **cfg}
