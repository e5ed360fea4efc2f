"""Suites and their results as plain tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffalign.commands._tables import table


def suites_table() -> str:
    """Every suite with the judges that it uses."""
    from diffalign.evaluation import suites

    rows = []
    for name in suites.names():
        suite = suites.get(name)
        roles = [*suite.needs, *(f"[{role}]" for role in suite.optional)]
        rows.append(
            [name, suite.title, " ".join(role for role in roles if role != "parse"), str(suite.images_per_prompt)]
        )
    return table(["suite", "benchmark", "judges", "images"], rows)


def result_table(result: Mapping[str, Any]) -> str:
    """Score and interval of each task and of the whole, and what to read them by."""
    entries = {**result["tasks"], "overall": result["overall"]}
    rows = [
        [name, f"{one['score']:.4f}", f"[{one['low']:.4f}, {one['high']:.4f}]", str(one["prompts"]), str(one["images"])]
        for name, one in entries.items()
    ]
    images = result["images"]
    kinds = ("missing", "broken", "failed")
    lost = [f"{len(images[kind])} images {kind}" for kind in kinds if images[kind]]
    notes = [result["variant"], *([result["subset"]] if result["subset"] else []), *lost]
    return f"{table(['task', 'score', '95% CI', 'prompts', 'images'], rows)}\n{'; '.join(notes)}"
