"""`diffalign train`: align a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffalign.commands._checks import check_run
from diffalign.commands._parser import Parser
from diffalign.commands._run_options import add_run_options, config_from
from diffalign.config import RunConfig

HELP = "align a model"
INTERRUPTED = 130


def add_arguments(parser: Parser) -> None:
    """Adds every configuration key and `--check`."""
    parser.add_argument("--check", action="store_true", help="run the full preflight only, as `diffalign doctor` does")
    add_run_options(parser, "train", parser.words)


def run(args: argparse.Namespace) -> int:
    """Trains; the trainer prints the path of the report at the end, then the gain if it was measured."""
    config = config_from(args)
    if args.check:
        return check_run(config)
    from diffalign.trainers import Trainer
    from diffalign.trainers.run.interrupt import Terminated

    try:
        Trainer(args=config).train(resume_from_checkpoint=config.resume_from_checkpoint)
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"\n{interruption(config)}", file=sys.stderr)
        return int(stop.code or 0) if isinstance(stop, Terminated) else INTERRUPTED
    return 0


def interruption(config: RunConfig) -> str:
    """The last checkpoint after Ctrl-C or SIGTERM, and how to go on."""
    from diffalign.trainers.run.checkpoints import latest_checkpoint

    last = latest_checkpoint(Path(config.output_dir))
    if last is None:
        return f"diffalign train: interrupted before the first checkpoint in {config.output_dir}"
    return (
        f"diffalign train: interrupted; the last checkpoint is {last}; the same command with "
        "--resume_from_checkpoint latest goes on from there"
    )
