"""Training methods by name: found among the modules of this package, so that a new method is a new file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from diffalign.config import RunConfig, converted, default_of, nearest, own_name, read_config
from diffalign.config import make_config as make_config_of

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer

DEFAULT = "policy_gradient"


@cache
def methods() -> dict[str, type[BaseTrainer]]:
    """Method name -> trainer class, for every concrete trainer defined in a module of this package."""
    from diffalign.trainers.base import BaseTrainer

    package = __name__.rpartition(".")[0]
    found: dict[str, type[BaseTrainer]] = {}
    for info in iter_modules([str(Path(__file__).parent)]):
        module = import_module(f"{package}.{info.name}")
        for value in vars(module).values():
            own = inspect.isclass(value) and issubclass(value, BaseTrainer) and value.__module__ == module.__name__
            if own and not inspect.isabstract(value):
                found[value.Config.method] = value
    return dict(sorted(found.items()))


def method_names() -> list[str]:
    """Names of all methods, read from the sources: nothing heavy is imported."""
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py")]
    return sorted({name for text in texts for name in re.findall(r'^    method: str = key\(\s*"(\w+)"', text, re.M)})


def trainer_class(method: str) -> type[BaseTrainer]:
    """The trainer of a method.

    Raises:
        ValueError: no method of this name; the nearest one and all of them.
    """
    if method not in methods():
        raise ValueError(f"there is no method `{method}`{nearest(method, methods())} (valid: {', '.join(methods())})")
    return methods()[method]


def make_config(values: Mapping[str, Any]) -> RunConfig:
    """The configuration of the method that the key `method` names.

    Raises:
        ValueError: an unknown method or key, a key of another method, a wrong type or range.
    """
    method = str(values.get("method") or DEFAULT)
    cls = trainer_class(method).Config
    values = _without_foreign_defaults(values, cls) if _is_version_1(values) else values
    for name in values:
        owners = _owners(str(name), cls)
        if owners:
            raise ValueError(
                f"`{name}` is a key of method = {' and '.join(owners)}, and this run has method = {method}: leave it "
                "out"
            )
    return make_config_of(values, cls)


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A configuration from a YAML file, with overrides on top.

    Raises:
        ValueError: the file is not a mapping, or as `make_config`.
    """
    values, given = read_config(path), dict(overrides or {})
    cls = trainer_class(str(given.get("method") or values.get("method") or DEFAULT)).Config
    named = {own_name(str(name), cls) for name in given}
    return make_config({k: v for k, v in values.items() if own_name(str(k), cls) not in named} | given)


def completed(config: RunConfig | Mapping[str, Any] | None) -> RunConfig:
    """The configuration in the class of its method: a plain `RunConfig` gets the method's defaults.

    Raises:
        ValueError: as `make_config`.
    """
    if isinstance(config, RunConfig):
        return converted(config, trainer_class(config.method).Config)
    return make_config(config or {})


def _owners(name: str, cls: type[RunConfig]) -> list[str]:
    """Methods that have a key which this class lacks."""
    if own_name(name, cls) in {f.name for f in fields(cls)}:
        return []
    return [
        method
        for method, trainer in methods().items()
        if own_name(name, trainer.Config) in {f.name for f in fields(trainer.Config)}
    ]


def _is_version_1(values: Mapping[str, Any]) -> bool:
    """True for a configuration saved by version 1, which held the keys of every method."""
    return {"nft_beta", "awm_weighting", "kl_limit", "preflight", "seed"} <= set(values)


def _without_foreign_defaults(values: Mapping[str, Any], cls: type[RunConfig]) -> dict[str, Any]:
    """Without keys of other methods that have their owner's default: version 1 saved them, and nothing read them."""
    kept = dict(values)
    for name, value in values.items():
        owners = _owners(name, cls)
        keys = {f.name: f for method in owners for f in fields(trainer_class(method).Config)}
        if owners and value == default_of(keys[name]):
            del kept[name]
    return kept
