"""Options of `evaluate --suite`."""

from __future__ import annotations

import argparse

from diffalign.commands._options import expanded_path, positive

ALONE = ("detector", "judges", "judge_kwargs", "images", "partial", "label", "mixed")
"""Options that have no use without --suite."""


def add_suite_options(parser: argparse.ArgumentParser) -> None:
    """Adds what only suites use."""
    group = parser.add_argument_group("benchmark suites")
    group.add_argument(
        "--suite", metavar="NAME",
        help="geneval, t2i_compbench, dpg, geneval2, ... (`--suite list` prints all); --prompts is the suite's file, "
        "--max_prompts spreads evenly over it, --output is a folder for images and result.json",
    )  # fmt: skip
    group.add_argument(
        "--detector", type=expanded_path, metavar="NAME|FILE.py:FUNCTION",
        help="mask2former, owlv2, grounding_dino, shapes, recorded [the suite's]",
    )  # fmt: skip
    group.add_argument(
        "--judges", nargs="+", default=[], metavar="ROLE=NAME",
        help="the suite's other judges: color, yes, answer, answer_probability, depth, similarity, parse, score",
    )  # fmt: skip
    group.add_argument("--judge_kwargs", metavar="{ROLE: {KEY: VALUE}}", help="options per judge, in YAML")
    group.add_argument("--judge_batch_size", type=positive, default=8, help="images that are judged at once")
    group.add_argument(
        "--images", type=expanded_path, metavar="FOLDER", help="score these images, made elsewhere, and draw none"
    )
    group.add_argument("--partial", action="store_true", help="score --images although some are missing or broken")
    group.add_argument("--label", help="name of the result on pages [the run's or model's name]")
    group.add_argument("--mixed", action="store_true", help="compare results of different judges all the same")


def refuse_suite_options(args: argparse.Namespace) -> None:
    """An option that only suites use, given without one, is a mistake.

    Raises:
        ValueError: names the option.
    """
    given = [name for name in ALONE if getattr(args, name)]
    if len(args.against or []) > 1:
        given.append("against (with several files)")
    if given:
        raise ValueError(f"--{given[0]} is for benchmark suites: name one by --suite (`--suite list` prints all)")
