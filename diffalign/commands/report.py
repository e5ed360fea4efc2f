"""`diffalign report`: the page of a run in any state, or of several runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffalign.commands._options import expanded_path
from diffalign.commands._outputs import check_writable

HELP = "write the report page of a run, finished or killed; several runs, or results of a suite, side by side"
RUN_FILES = ("metrics.jsonl", "config.yaml", "evaluation")
"""A run folder has at least one of these."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the runs and the output."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=expanded_path,
        metavar="RUN|RESULT.json",
        help="run folders, or results of `evaluate --suite`",
    )
    parser.add_argument(
        "--output",
        type=expanded_path,
        metavar="FILE",
        help="the page [RUN/report.html; of several runs: side_by_side.html; of results: comparison.html]",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints its path and, of a single run, its result."""
    folders = [Path(name) for name in args.runs]
    if all(folder.suffix == ".json" for folder in folders):
        return _suite_results(folders, Path(args.output or "comparison.html"))
    for folder in folders:
        if not any((folder / name).exists() for name in RUN_FILES):
            raise ValueError(f"{folder} is not the folder of a run: it has none of {', '.join(RUN_FILES)}")
    single = len(folders) == 1
    output = Path(args.output or (folders[0] / "report.html" if single else "side_by_side.html"))
    check_writable(output)
    from diffalign.report import headline, write_report, write_side_by_side
    from diffalign.report.run_folder import read_run

    print(write_report(folders[0], output) if single else write_side_by_side(folders, output))
    comparison = read_run(folders[0]).comparison if single else None
    if comparison:
        print(headline(comparison))
    return 0


def _suite_results(files: list[Path], output: Path) -> int:
    """The page that compares results of a benchmark suite; the first is what the others are compared with."""
    check_writable(output)
    from diffalign.report.suite_page import write_suite_page
    from diffalign.report.suite_results import read_result

    print(write_suite_page([read_result(file) for file in files], output))
    return 0
