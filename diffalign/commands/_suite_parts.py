"""What one call of `evaluate --suite` measures: one suite, or all categories of one benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffalign.commands._suite_layout import FLAT, FOLDERS, Layout
from diffalign.data import read_prompts

if TYPE_CHECKING:
    from diffalign.evaluation.judges import Judges
    from diffalign.evaluation.suites import Suite

Line = Mapping[str, Any]
MENDED = "_mended"
FILES = ("{task}_val.txt", "{task}.txt", "{task}.csv", "{task}.jsonl")
"""Prompt file of one task of a benchmark; the first is T2I-CompBench's own name."""
PREFIX = "t2i_"
"""Benchmarks are known with and without it."""


class Part(NamedTuple):
    """A suite with its prompts.

    Attributes:
        suite: the suite.
        task: its name within the benchmark, "" where the benchmark is this suite alone.
        lines: prompts ready to be scored.
        available: prompts of its whole file.
    """

    suite: Suite
    task: str
    lines: list[Line]
    available: int

    @property
    def layout(self) -> Layout:
        """How its images are named."""
        return FLAT if self.suite.file_names == "prompt" else FOLDERS

    def inside(self, file: str) -> str:
        """A name within the folder of all parts."""
        return f"{self.task}/{file}" if self.task else file

    def task_of(self, line: Line) -> str:
        """The task of a line in the result: the category in a benchmark of several suites, else the suite's own."""
        return self.task or str(line["task"])


def members(name: str) -> dict[str, Suite]:
    """The suites that a name stands for: itself, or all categories of a benchmark in its released form, by task.

    Raises:
        ValueError: unknown name; the nearest is named.
    """
    from diffalign.evaluation import suites

    plain = name.replace("-", "_").removeprefix(PREFIX)
    if plain in suites.names():
        return {"": suites.get(plain)}
    stem = f"{plain.removesuffix(MENDED)}_"
    mended = plain.endswith(MENDED)
    family = [one for one in suites.names() if one.startswith(stem) and one.endswith(MENDED) == mended]
    if not family:
        suites.get(plain)  # raises with the nearest name
    return {one.removeprefix(stem).removesuffix(MENDED): suites.get(one) for one in family}


def read_parts(suites: Mapping[str, Suite], prompts: str, judges: Judges, most: int | None) -> list[Part]:
    """The suites with their prompts.

    Args:
        suites: of `members`.
        prompts: the suite's prompt file, `shapes:heldout` or `shapes:train`; for several suites a folder that holds
            the file of each, under one of `FILES`.
        judges: filled for every suite.
        most: prompts of each suite, spread evenly over its file; None: all.

    Raises:
        ValueError: a file of another suite, or prompts that lack what the suite needs.
        FileNotFoundError: no such file.
    """
    parts = []
    for task, suite in suites.items():
        lines = _lines(suite, _file(prompts, task), suite.prepare(judges))
        parts.append(Part(suite, task, spread(lines, most), len(lines)))
    return parts


def spread(lines: Sequence[Line], most: int | None) -> list[Line]:
    """At most so many lines at even distances: a subset then has every task of a file that is sorted by tasks."""
    if most is None or most >= len(lines):
        return list(lines)
    return [lines[i * len(lines) // most] for i in range(most)]


def _file(prompts: str, task: str) -> str:
    if not task or prompts.startswith("shapes:"):
        return prompts
    folder = Path(prompts)
    names = [form.format(task=task) for form in FILES]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"--prompts {prompts} must be a folder that holds {' or '.join(names)}, and so for every task")
    return str(found)


def _lines(suite: Suite, prompts: str, judges: Judges) -> list[Line]:
    if not prompts.startswith("shapes:"):
        return list(suite.read_lines(Path(prompts), judges))
    return [suite.line(record["prompt"], record["metadata"], judges) for record in read_prompts(prompts)]
