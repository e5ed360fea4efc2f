"""`diffalign losses`: the losses by kind, or one of them in full: formula, signature, source, file and line."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from typing import Any

from diffalign.commands._tables import table

HELP = "list the losses by kind, or show one: formula, signature, source, file"
HEAD = ["loss", "formula", "form", "paper"]
WIDTH = 120
"""Characters in a line where the output is not a terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the name, the kind and the format."""
    parser.add_argument("name", nargs="?", help="a loss, an advantage, ... by its id or an alias: simpo, dr_grpo")
    parser.add_argument("--kind", help="list this kind only")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the table or one entry.

    Raises:
        ValueError: no loss has this name, or no kind; the nearest are named.
    """
    from diffalign.losses import recipes

    if args.name is not None:
        entry = recipes.describe(recipes.get(args.name))
        print(json.dumps(entry, indent=2) if args.json else "\n".join(_entry(entry)))
        return 0
    entries = [recipes.describe(recipes.get(name)) for name in recipes.names(args.kind)]
    print(json.dumps(entries, indent=2) if args.json else _listing(entries))
    return 0


def _columns() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns


def _listing(entries: list[dict[str, Any]]) -> str:
    """One table for each kind, under what it is called with."""
    from diffalign.losses import recipes

    parts = []
    for kind in recipes.KINDS.values():
        mine = [entry for entry in entries if entry["kind"] == kind.name]
        if mine:
            rows = [[e["name"], e["formula"], e["confidence"], e["arxiv"] or "-"] for e in mine]
            head = textwrap.wrap(f"{kind.name}: ({kind.call}) -> {kind.returns}", _columns())
            parts.append("\n".join([*head, "", table(HEAD, rows, _columns())]))
    return "\n\n".join([*parts, "`diffalign losses NAME`: one of them in full"])


def _entry(entry: dict[str, Any]) -> list[str]:
    """One line per property, then the text of the docstring."""
    paper = entry["title"] + (f", arXiv:{entry['arxiv']}" if entry["arxiv"] else "")
    seen = entry["confidence"] + (f": {entry['source']}" if entry["source"] else "")
    properties = {
        "aliases": ", ".join(entry["aliases"]) or "-",
        "kind": f"{entry['kind']}, called with {entry['called_with']}",
        "formula": entry["formula"] or "-",
        "signature": entry["signature"],
        "returns": entry["returns"] + (f"; reduced by {entry['reduction']}" if entry["reduction"] else ""),
        "paper": paper,
        "form": seen,
        "file": f"{entry['file']}:{entry['line']}",
        "use": entry["usage"],
    }
    lines = [entry["name"]]
    for key, value in properties.items():
        start, rest = f"  {key:<11}", " " * 13
        lines += textwrap.wrap(value, _columns(), initial_indent=start, subsequent_indent=rest, break_long_words=False)
    return [*lines, "", *(f"  {line}".rstrip() for line in entry["text"].splitlines())]
