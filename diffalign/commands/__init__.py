"""The command line: one module per verb, found by its file name, so that a new verb is a new file and nothing else.

A verb is a module of this package whose name has no leading underscore; its underscores are typed as dashes, or as they
are. It defines `HELP` (one line), `add_arguments(parser)` and `run(args) -> int` (the exit status), and imports heavy
libraries inside `run` only.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from diffalign import __version__
from diffalign.commands._parser import Parser, normalised, refuse_unknown
from diffalign.config import nearest

USER_ERROR = 2
INTERRUPTED = 130
FOOT = ("`diffalign COMMAND --help` lists its options; DIFFALIGN_TRACEBACK=1 in the environment shows errors in full",)
HINT = " [set DIFFALIGN_TRACEBACK=1 to see where this comes from]"


def verbs() -> list[str]:
    """Names of all commands, sorted."""
    return sorted(m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    A mistake of the user (`ValueError`, `OSError` or a missing library) becomes one line on stderr and exit status 2;
    with `DIFFALIGN_TRACEBACK=1` in the environment its traceback is shown instead.

    Args:
        argv: words after the program's name; default those of the process.

    Returns:
        The exit status: 0, 1 for a check that failed, 2 for a mistake of the user, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words[:1] = [word if word.startswith("-") else word.replace("_", "-") for word in words[:1]]
    name = f"diffalign {words[0]}" if words and words[0] in verbs() else "diffalign"
    try:
        with _plain_output():
            status = _dispatch(words)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `diffalign ... | head`: nobody reads on, and nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("DIFFALIGN_TRACEBACK"):
            raise
        print(f"{name}: {_one_line(error)}{'' if _ours(error) else HINT}", file=sys.stderr)
        return USER_ERROR


@contextmanager
def _plain_output() -> Iterator[None]:
    """Warnings are one line without code; characters that the locale's encoding lacks are printed as `\\xe9`.

    Otherwise a finished command could end in an error at its last `print`.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a notebook has put another object
            stream.reconfigure(errors="backslashreplace")
    usual, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {message}\n"


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else USER_ERROR
    if words[0] in ("-V", "--version"):
        print(f"diffalign {__version__}")
        return 0
    if words[0] not in verbs():
        raise ValueError(f"unknown command `{words[0]}`{nearest(words[0], verbs())} (valid: {', '.join(verbs())})")
    return _run(words[0], words[1:])


def _run(verb: str, words: list[str]) -> int:
    module = _load(verb)
    parser = Parser(prog=f"diffalign {verb}", description=module.HELP)
    parser.words = normalised(words)
    module.add_arguments(parser)
    try:
        args, rest = parser.parse_known_args(parser.words)
    except SystemExit:  # argparse, after it has printed --help
        return 0
    refuse_unknown(parser, rest)
    status: int = module.run(args)
    return status


def overview() -> str:
    """The text of `diffalign --help`."""
    width = max(len(verb) for verb in verbs())
    lines = [f"  {verb:<{width}}  {_load(verb).HELP}" for verb in verbs()]
    return "\n".join(["usage: diffalign COMMAND [options]", "", "commands:", *lines, "", *FOOT])


def _load(verb: str) -> ModuleType:
    return import_module(f"{__name__}.{verb.replace('-', '_')}")


def _one_line(error: Exception) -> str:
    """The message on one line (list items keep theirs), with its notes; the system's file errors without number."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.strerror}: {error.filename}"
    if isinstance(error, UnicodeEncodeError):
        text = f"{text}; this locale has no such character: set PYTHONUTF8=1"
    notes = "; ".join(getattr(error, "__notes__", []))
    return re.sub(r"\s*\n(?!- )\s*", " ", f"{text} ({notes})" if notes else text)


def _ours(error: Exception) -> bool:
    """True when the package itself raised the error, so that its message was written for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("diffalign")
