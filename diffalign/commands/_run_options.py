"""Every configuration key as a command-line option, and the configuration that comes out."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from diffalign.commands._recipes import find_recipe
from diffalign.config import RunConfig, default_of, hints, parse_yaml

HELP_WORDS = ("-h", "--help")


def add_run_options(parser: argparse.ArgumentParser, verb: str, words: Sequence[str] = ()) -> None:
    """Adds `--config` and one option per configuration key.

    Args:
        parser: of the command.
        verb: its name.
        words: the command line. `--help` shows the common keys, `--help METHOD` the method's own; else every key of
            every method is an option, and the configuration refuses those of another method.
    """
    parser.usage = f"diffalign {verb} [--config FILE|RECIPE] [--key value ...] | --help [METHOD]"
    method = _method_to_explain(words)
    if method is not None:
        cls = _config_class(method)
        common = {f.name for f in dataclasses.fields(RunConfig)}
        _add_keys(parser, cls, [f for f in dataclasses.fields(cls) if f.name not in common])
        parser.epilog = f"`diffalign {verb} --help` shows the keys that every method has."
        parser.add_argument("method_to_explain", nargs="*", help=argparse.SUPPRESS)
        return
    parser.add_argument("--config", metavar="FILE|RECIPE", help="YAML file, or a recipe like shapes-flow/quickstart")
    _add_keys(parser, RunConfig, dataclasses.fields(RunConfig))
    if any(word in HELP_WORDS for word in words):
        parser.epilog = f"`diffalign {verb} --help METHOD` shows a method's own keys; methods: {', '.join(_methods())}."
        return
    known = {f.name for f in dataclasses.fields(RunConfig)}
    for cls in _config_classes():
        new = [f for f in dataclasses.fields(cls) if f.name not in known]
        _add_keys(parser, cls, new)
        known |= {f.name for f in new}


def config_from(args: argparse.Namespace) -> RunConfig:
    """The configuration: the file or recipe, with the options that were given on top.

    Raises:
        ValueError: an unknown recipe, method or key, a key of another method, a wrong type or range.
    """
    from diffalign.trainers import load_config, make_config

    types_of: dict[str, Any] = {}
    for cls in (*_config_classes(), RunConfig):
        types_of |= hints(cls)
    given = {name: read(name, value, types_of[name]) for name, value in vars(args).items() if name in types_of}
    if args.config is None:
        return make_config(given)
    return load_config(find_recipe(args.config), given)


def read(key: str, words: Any, hint: Any) -> Any:
    """The value that the words behind `--key` stand for; lists, mappings and booleans in YAML syntax.

    Args:
        key: its name, for the message.
        words: what argparse found.
        hint: the key's type.

    Raises:
        ValueError: broken YAML.
    """
    kind = _inner(hint)
    if isinstance(words, list):
        items = [_yaml(key, word) if word.startswith("[") or kind != list[str] else word for word in words]
        if len(items) == 1 and not isinstance(items[0], (int, float)):
            return items[0]  # `[a, b]`, `none`, or one bare item
        return items
    if typing.get_origin(kind) is dict or kind is bool:
        return _yaml(key, words)
    return None if kind is not hint and words in ("null", "~") else words


def _method_to_explain(words: Sequence[str]) -> str | None:
    """METHOD of `--help METHOD`."""
    for word, following in zip(words, words[1:], strict=False):
        if word in HELP_WORDS and not following.startswith("-"):
            return following
    return None


def _methods() -> list[str]:
    from diffalign.trainers import method_names

    return method_names()


def _config_class(method: str) -> type[RunConfig]:
    from diffalign.trainers import trainer_class

    return trainer_class(method).Config


def _config_classes() -> list[type[RunConfig]]:
    return [_config_class(method) for method in _methods()]


def _add_keys(parser: argparse.ArgumentParser, cls: type[RunConfig], keys: Iterable[dataclasses.Field[Any]]) -> None:
    group: Any = parser
    for key in keys:
        if key.metadata["section"]:
            group = parser.add_argument_group(key.metadata["section"])
        names = [key.name, *key.metadata["aliases"]]
        known = {option for action in parser._actions for option in action.option_strings}
        group.add_argument(
            *(f"--{name}" for name in names if f"--{name}" not in known),
            dest=key.name,
            default=argparse.SUPPRESS,
            help=f"{key.metadata['help']} [{_shown(default_of(key))}]".replace("%", "%%"),
            **_form(hints(cls)[key.name]),
        )


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
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"--{key} {text!r} is {error}") from error


def _shown(value: Any) -> str:
    """A default as one would type it."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"
