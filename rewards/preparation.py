"""Rewards as a run uses them: made from names, with options, cache and routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffalign.naming import unknown
from diffalign.rewards.base import Reward
from diffalign.rewards.cache import ScoreCache
from diffalign.rewards.guard import GuardedReward, GuardOptions, read_options
from diffalign.rewards.identity import identity
from diffalign.rewards.registry import get, listed
from diffalign.rewards.routes import Route, RoutedReward


def prepare(
    sources: Any,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    routes: Mapping[str, Any] | None = None,
    cache: str | None = None,
) -> dict[str, Reward]:
    """Makes rewards; with options, a route or a cache a reward is wrapped, else it is the object itself.

    Args:
        sources: what `diffalign.rewards.get` takes: one, or a list of them.
        arguments: keyword arguments by source, for those given as text.
        options: `GuardOptions` by source or reward name.
        routes: conditions on prompts by source or reward name; those of other rewards are left alone.
        cache: file or folder where scores are kept.

    Returns:
        Rewards by name, in the given order.

    Raises:
        ValueError: an unknown reward or option, or two rewards of one name.
    """
    out: dict[str, Reward] = {}
    for source in listed(sources):
        known = dict((arguments or {}).get(source, {})) if isinstance(source, str) else {}
        reward = get(source, **known)
        if reward.name in out:
            raise ValueError(f"two rewards are called {reward.name!r}: give one of them another name")
        given = _of(reward, source, options)
        if given is not None or cache is not None:
            reward = GuardedReward(
                reward,
                read_options(reward.name, given) if given is not None else GuardOptions(),
                spec=source,
                arguments=known,
                cache=None if cache is None else ScoreCache(cache),
                identity=None if cache is None else identity(source, known, reward),
            )
        route = _of(reward, source, routes)
        out[reward.name] = reward if route is None else RoutedReward(reward, Route(route))
    return out


def check_names(key: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse settings of a reward that the run does not have.

    Raises:
        ValueError: names the nearest one.
    """
    for name in given:
        if name not in known:
            raise unknown(f"reward in {key}:", name, known)


def _of(reward: Reward, source: Any, settings: Mapping[str, Any] | None) -> Any:
    """The setting of a reward, under its own name or the name in the configuration."""
    found = (settings or {}).get(reward.name)
    return (settings or {}).get(source) if found is None and isinstance(source, str) else found
