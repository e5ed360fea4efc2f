"""Prints a Markdown table of every run in `results/summary.csv`: ``python benchmarks/alignment/table.py``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.alignment.board import gain_cells, markdown  # noqa: E402
from benchmarks.alignment.results import MEAN, Results, Row  # noqa: E402

HEAD = ["run", "overall", "gain, 95% CI", "guidance", "images", "model evaluations", "training minutes"]


def line(row: Row) -> list[str]:
    """Cells of one run: gain with interval, best guidance scales, cost."""
    return [
        f"{row['model']}/{row['method']}/seed-{row['seed']}",
        *gain_cells(row),
        f"{row['guidance_before']} -> {row['guidance_after']}",
        f"{int(row['images']):,}",
        f"{float(row['evaluations']) / 1000:,.0f} k",
        f"{float(row['seconds']) / 60:.1f}",
    ]


def main() -> None:
    """Print the table."""
    print(markdown(HEAD, [line(row) for row in Results().table("summary") if row["seed"] != MEAN]))


if __name__ == "__main__":
    main()
