"""Prints a Markdown table of every run filed under benchmarks/alignment."""

from __future__ import annotations

import csv
import json
from pathlib import Path

HERE = Path(__file__).parent


def row(folder: Path) -> str:
    """One line: gain with interval, best guidance scales, cost."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    overall, guidance = comparison["overall"], comparison["guidance"]
    with (folder / "curve.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    cells = [
        str(folder.relative_to(HERE)),
        f"{overall['before']:.3f} -> {overall['after']:.3f}",
        f"{overall['gain']:+.3f} [{overall['low']:+.3f}, {overall['high']:+.3f}]",
        f"{guidance['before']:g} -> {guidance['after']:g}",
        f"{int(last['images']):,}",
        f"{(int(last['forwards']) + int(last['backwards'])) / 1000:,.0f} k",
        f"{float(last['seconds']) / 60:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    print("| run | overall | gain, 95% CI | guidance | images | model evaluations | training minutes |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(HERE.rglob("comparison.json")):
        print(row(path.parent))


if __name__ == "__main__":
    main()
