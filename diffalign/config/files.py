"""Configurations from keys and values, from YAML, and back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from diffalign.config.foreign_names import suggestion
from diffalign.config.keys import aliases, default_of, known_keys
from diffalign.config.run_config import RunConfig
from diffalign.config.yaml_text import read_mapping, write_mapping

C = TypeVar("C", bound=RunConfig)

VERSION = 2
"""Of the saved form: 1 had the keys of every method in one configuration."""


def make_config(values: Mapping[str, Any], cls: type[C] = RunConfig) -> C:  # type: ignore[assignment]
    """A configuration of this class from keys (or their other names) and values.

    Raises:
        ValueError: an unknown key (with the nearest one), a value of the wrong type or outside its range.
    """
    return cls(**canonical(values, cls))


def changed(config: C, **values: Any) -> C:
    """A copy with some keys changed, checked like any other configuration."""
    return make_config(asdict(config) | canonical(values, type(config)), type(config))


def converted(config: RunConfig | Mapping[str, Any] | None, cls: type[C]) -> C:
    """The configuration as one of this class: keys, or a plain `RunConfig`, whose other keys get the class's defaults.

    Raises:
        ValueError: as `make_config`, or a configuration of another method.
    """
    if isinstance(config, cls):
        return config
    if isinstance(config, RunConfig) and type(config) is not RunConfig:
        raise ValueError(f"args is a {type(config).__name__}, and this trainer takes a {cls.__name__}")
    values = _given(config) if isinstance(config, RunConfig) else dict(config or {})
    return make_config({**values, "method": cls.method}, cls)


def _given(config: RunConfig) -> dict[str, Any]:
    """Keys that differ from their defaults: the method's class may have another default."""
    defaults = {f.name: default_of(f) for f in fields(config)}
    return {key: value for key, value in asdict(config).items() if value != defaults[key]}


def canonical(values: Mapping[str, Any], cls: type[RunConfig]) -> dict[str, Any]:
    """The same values under the keys' own names.

    Raises:
        ValueError: an unknown key, or one key given twice under two names.
    """
    given: dict[str, str] = {}
    for name in values:
        own = own_name(str(name), cls)
        if own not in known_keys(cls):
            hint = suggestion(own, [*known_keys(cls), *aliases(cls)])
            raise ValueError(f"unknown configuration key `{name}`{hint or '; `diffalign train --help` lists all keys'}")
        if own in given:
            raise ValueError(f"`{given[own]}` and `{name}` are the same key, `{own}`: give one of them")
        given[own] = name
    return {own: values[name] for own, name in given.items()}


def own_name(name: str, cls: type[RunConfig]) -> str:
    """The key that a name with dashes or an alias stands for; any other name as it is."""
    plain = name.replace("-", "_")
    return aliases(cls).get(plain, plain)


def read_config(path: str | Path) -> dict[str, Any]:
    """Keys and values of a YAML file, without those that belong to one launch.

    Raises:
        ValueError: the file is not a mapping, or was saved by a newer version.
    """
    values = read_mapping(path)
    version = values.pop("config_version", None)
    if version is not None and (not isinstance(version, int) or version > VERSION):
        raise ValueError(f"{path} has config_version {version}; this version of diffalign reads up to {VERSION}")
    for name in launch_keys():
        if values.pop(name, None):
            warnings.warn(
                f"{path} sets {name}, which is not taken from a file: give it on the command line or in Python",
                stacklevel=2,
            )
    return values


def saved_form(config: RunConfig) -> dict[str, Any]:
    """What a configuration file holds: every resolved key but those of one launch."""
    return {name: value for name, value in asdict(config).items() if name not in launch_keys()}


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write every key with its resolved value as YAML."""
    write_mapping({"config_version": VERSION, **saved_form(config)}, path)


def launch_keys() -> frozenset[str]:
    """Keys that belong to one launch and are never saved."""
    return frozenset(f.name for f in fields(RunConfig) if f.metadata["launch"])
