"""Kept results: three tables, and per method one configuration and one curve.

`results/summary.csv`: one row per run, and one row with seed `mean` where a method has several seeds.
`results/protocols.csv`: one row per protocol, with the scores before training.
`results/scores.csv`: one line per evaluation and reward, with the score of every prompt, in the order of
`results/prompts/<name>.csv`. Every interval of `summary.csv` can be computed again from it.
`results/<model>/<method>.yaml` and `.csv`: resolved configuration of the first run, and the curves of all runs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parent / "results"
MEAN = "mean"

Row = dict[str, str]


@dataclass(frozen=True)
class Results:
    """The tables under one folder.

    Attributes:
        folder: Where they are.
    """

    folder: Path = RESULTS

    def table(self, name: str) -> list[Row]:
        """Rows of `summary`, `protocols` or `scores`; empty before the first run is kept."""
        return read_table(self.folder / f"{name}.csv")

    def curve(self, model: str, method: str) -> list[Row]:
        """Curves of all seeds of a method, told apart by the column `seed`."""
        return read_table(self.folder / model / f"{method}.csv")

    def config(self, model: str, method: str) -> dict[str, Any]:
        """Configuration of a method without the keys of a single run."""
        path = self.folder / model / f"{method}.yaml"
        return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def protocol(self, name: str) -> Row:
        """Row of one protocol."""
        return next(row for row in self.table("protocols") if row["protocol"] == name)

    def write(self, name: str, rows: Iterable[Row]) -> None:
        """Replace a table, sorted by model, method and seed."""
        order = sorted(rows, key=lambda row: (row["model"], row.get("method", ""), row.get("seed", "").zfill(6)))
        write_table(self.folder / f"{name}.csv", order)

    def replace(self, name: str, model: str, method: str, seed: str, rows: list[Row]) -> None:
        """Put rows in the place of those of one run."""
        key = (model, method, seed)
        others = [row for row in self.table(name) if (row["model"], row["method"], row["seed"]) != key]
        self.write(name, others + rows)

    def remove(self, model: str, method: str | None = None) -> None:
        """Delete the runs of a method, or everything of a model, for instance after its checkpoint has changed."""

        def goes(row: Row) -> bool:
            return row["model"] == model and (method is None or row.get("method") == method)

        if not any(goes(row) for row in self.table("summary")):
            raise ValueError(f"no run of {model}{f'/{method}' if method else ''} is kept in {self.folder}")
        for name in ("summary", "scores", "protocols"):
            self.write(name, [row for row in self.table(name) if not goes(row)])
        for path in (self.folder / model).glob(f"{method or '*'}.*"):
            path.unlink()


def read_table(path: Path) -> list[Row]:
    """Rows of a CSV file; empty without one."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: list[Row]) -> None:
    """Write rows with the union of their columns, in order of appearance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
