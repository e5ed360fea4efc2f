"""Argument parsing: errors as ValueError, dashes and underscores alike, unknown options with the nearest name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from diffalign.config import suggestion

METAVARS = {"int": "INT", "positive": "INT", "float": "FLOAT", "number": "FLOAT"}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are raised as ValueError and that takes no abbreviations.

    Attributes:
        words: the command line, for options that depend on it.
    """

    words: Sequence[str] = ()

    def __init__(self, **options: Any) -> None:
        """Takes the keyword arguments of `argparse.ArgumentParser`."""
        super().__init__(**{"allow_abbrev": False, "formatter_class": Formatter, **options})

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the whole usage.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message}; `{self.prog} --help` lists the options")


class Formatter(argparse.HelpFormatter):
    """Wide help, with the default behind each option that has one."""

    def __init__(self, prog: str) -> None:
        """Sets the widths."""
        super().__init__(prog, max_help_position=34, width=118)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = action.default in (None, argparse.SUPPRESS, "") or action.default is False or not action.option_strings
        return text if silent or "%(default)" in text else f"{text} (default: %(default)s)"

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return METAVARS.get(getattr(action.type, "__name__", "str"), "TEXT")


def normalised(words: Sequence[str]) -> list[str]:
    """The same words with `--some-key[=value]` spelled `--some_key[=value]`."""
    result = []
    for word in words:
        option, equals, value = word.partition("=")
        spelled = "--" + option[2:].replace("-", "_") if option.startswith("--") else option
        result.append(spelled + equals + value)
    return result


def refuse_unknown(parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
    """Words that the parser could not place are an error.

    Raises:
        ValueError: names the nearest option.
    """
    if not rest:
        return
    word = next((word for word in rest if word.startswith("-")), rest[0])
    if not word.startswith("-"):
        raise ValueError(f"unexpected argument {word!r}; `{parser.prog} --help` lists the options")
    name = word.split("=")[0]
    known = [option for action in parser._actions for option in action.option_strings]
    raise ValueError(f"unknown option {name}{suggestion(name, known)}; `{parser.prog} --help` lists the options")
