"""Which rewards an evaluation measures, the score first."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from diffalign.commands._options import reward_arguments
from diffalign.commands._runs import Run

if TYPE_CHECKING:
    from diffalign.rewards import Reward

DEFAULT = ["shapes_strict", "shapes"]
KEY = "reward_specs"
"""Key of an evaluation file: how its rewards were made, a list of [name or file.py:function, arguments]."""


class Choice(NamedTuple):
    """Rewards that are not made yet.

    Attributes:
        specs: names or `file.py:function`, the score first.
        arguments: keyword arguments by specification.
        source: the run that they come from; None where the run had no say.
    """

    specs: list[str]
    arguments: dict[str, dict[str, Any]]
    source: Run | None = None

    def stored(self) -> list[list[Any]]:
        """The value under `KEY` in an evaluation file."""
        return [[spec, self.arguments.get(spec, {})] for spec in self.specs]

    def made(self) -> dict[str, Reward]:
        """Rewards by their own names.

        Raises:
            ValueError: an unknown reward, wrong arguments, or two of one name.
        """
        from diffalign.rewards import prepare

        return prepare(self.specs, self.arguments)


def chosen_rewards(args: argparse.Namespace, other: dict[str, Any] | None, run: Run | None) -> Choice:
    """Those of --reward_funcs, else of the other evaluation, else of the run in its order, else `DEFAULT`.

    Raises:
        ValueError: arguments for a reward that is not there, or another evaluation whose rewards are not known by name.
    """
    choice = _choice(args, other, run)
    given = reward_arguments(args.reward_kwargs)
    if set(given) - set(choice.specs):
        raise ValueError(f"--reward_kwargs {args.reward_kwargs} must map names out of {choice.specs} to arguments")
    if choice.source is not None:
        print(f"from {choice.source.source}: reward_funcs {' '.join(choice.specs)}", flush=True)
    return choice._replace(arguments={**choice.arguments, **given})


def _choice(args: argparse.Namespace, other: dict[str, Any] | None, run: Run | None) -> Choice:
    config = {} if run is None else run.config
    listed = [*(config.get("eval_rewards") or []), *(config.get("reward_funcs") or [])]
    of_run = Choice(list(dict.fromkeys(listed)), dict(config.get("reward_kwargs") or {}), run)
    if args.reward_funcs:
        return Choice(args.reward_funcs, {spec: of_run.arguments.get(spec, {}) for spec in args.reward_funcs})
    if other is not None and other.get(KEY):
        return Choice([spec for spec, _ in other[KEY]], dict(other[KEY]))
    if other is not None:
        return _by_name(other, of_run)
    return of_run if of_run.specs else Choice(DEFAULT, {})


def _by_name(other: dict[str, Any], of_run: Choice) -> Choice:
    """The rewards of an evaluation that only knows their names: those of the run, or registered ones.

    Raises:
        ValueError: a reward calls itself by another name than the registry does.
    """
    from diffalign.rewards import registry

    measured = [other.get("suite"), *((other["prompts"] or [{}])[0].get("rewards") or {})]
    names = [str(name) for name in dict.fromkeys(measured) if name]
    unknown = [name for name in names if name not in registry.names()]
    if not unknown:
        return Choice(names or DEFAULT, {spec: of_run.arguments.get(spec, {}) for spec in names})
    if of_run.specs and set(of_run.made()) == set(names):
        return of_run
    raise ValueError(f"the other evaluation measured {', '.join(unknown)}: say by --reward_funcs how to get it")
