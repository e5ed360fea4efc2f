"""`diffalign doctor`: check a run before it costs anything."""

from __future__ import annotations

import argparse

from diffalign.commands._checks import check_run
from diffalign.commands._parser import Parser
from diffalign.commands._run_options import add_run_options, config_from

HELP = "check a run before training: ratios, group rule, reward spread, gradients"


def add_arguments(parser: Parser) -> None:
    """Adds every configuration key, as `diffalign train` has them."""
    add_run_options(parser, "doctor", parser.words)


def run(args: argparse.Namespace) -> int:
    """Prints one line per check; exit status 1 when one fails."""
    return check_run(config_from(args))
