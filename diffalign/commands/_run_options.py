"""Every key of the run configuration as a command-line option, and the configuration that comes out."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from typing import Any, Literal

import yaml

from diffalign.commands._recipes import find_recipe
from diffalign.config import ALIASES, RunConfig, load_config, make_config

SECTIONS = {
    "pretrained_model_name_or_path": "model",
    "lora_r": "what is trained",
    "num_inference_steps": "sampling",
    "method": "policy gradient",
    "reward_funcs": "rewards",
    "max_train_steps": "optimisation",
    "train_dataset": "data",
    "eval_steps": "evaluation",
    "output_dir": "output",
}
"""First key of each section of the help -> its title."""

HINTS = typing.get_type_hints(RunConfig)


def add_run_options(parser: argparse.ArgumentParser, verb: str) -> None:
    """Adds `--config` and one option per configuration key."""
    parser.usage = f"diffalign {verb} [--config FILE|RECIPE] [--key value ...]"
    parser.add_argument("--config", metavar="FILE|RECIPE", help="YAML file, or a recipe like shapes-flow/quickstart")
    group: Any = parser
    for key in dataclasses.fields(RunConfig):
        if key.name in SECTIONS:
            group = parser.add_argument_group(SECTIONS[key.name])
        names = [key.name, *(alias for alias, meant in ALIASES.items() if meant == key.name)]
        group.add_argument(
            *(f"--{name}" for name in names),
            dest=key.name,
            default=argparse.SUPPRESS,
            help=f"{key.metadata['help']} [{_shown(default_of(key))}]".replace("%", "%%"),
            **_form(HINTS[key.name]),
        )


def config_from(args: argparse.Namespace) -> RunConfig:
    """The configuration: the file or recipe, with the options that were given on top.

    Raises:
        ValueError: an unknown recipe or key, a wrong type or range.
    """
    given = {name: read(name, value) for name, value in vars(args).items() if name in HINTS}
    if args.config is None:
        return make_config(given)
    return load_config(find_recipe(args.config), given)


def read(key: str, words: Any) -> Any:
    """The value that the words behind `--key` stand for; lists, mappings and booleans in YAML syntax.

    Raises:
        ValueError: broken YAML.
    """
    kind = _inner(HINTS[key])
    if isinstance(words, list):
        items = [_yaml(key, word) if word.startswith("[") or kind != list[str] else word for word in words]
        if len(items) == 1 and not isinstance(items[0], (int, float)):
            return items[0]  # `[a, b]`, `none`, or one bare item
        return items
    if typing.get_origin(kind) is dict or kind is bool:
        return _yaml(key, words)
    return None if kind is not HINTS[key] and words in ("null", "~") else words


def default_of(key: dataclasses.Field[Any]) -> Any:
    """The default of a configuration key."""
    return key.default if key.default_factory is dataclasses.MISSING else key.default_factory()


def _inner(hint: Any) -> Any:
    """`X | None` -> `X`."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(option for option in typing.get_args(hint) if option is not type(None))
    return hint


def _form(hint: Any) -> dict[str, Any]:
    """How argparse shows and splits an option of this type; the values are read and checked by the configuration."""
    kind = _inner(hint)
    if kind is bool:
        return {"nargs": "?", "const": "true", "metavar": "BOOL"}
    if typing.get_origin(kind) is Literal:
        return {"metavar": "|".join(typing.get_args(kind))}
    if typing.get_origin(kind) is list:
        return {"nargs": "+", "metavar": typing.get_args(kind)[0].__name__.upper()}
    return {"metavar": "{KEY: VALUE}" if typing.get_origin(kind) is dict else kind.__name__.upper()}


def _yaml(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--{key} {text!r} is not valid YAML: {error}") from error


def _shown(value: Any) -> str:
    """A default as one would type it."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"
