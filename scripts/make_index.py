"""Writes docs/losses_index.md from the registry of losses and docs/paper_index.md from the ledger of methods.

``python scripts/make_index.py`` writes both, ``--check`` says whether they are current (exit status 1 if not).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works from a bare checkout as well

from diffalign.citations import System, systems  # noqa: E402
from diffalign.losses import recipes  # noqa: E402
from diffalign.losses.recipes.registry import spelling  # noqa: E402

MADE = "<!-- written by scripts/make_index.py; do not edit -->"
UNSURE = ("derived", "unsure")
CONFIGS = {spelling(path.stem): path for path in sorted((ROOT / "scripts" / "recipes").rglob("*.yaml"))}


def row(*cells: str) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def code(text: str) -> str:
    """Text as code; empty stays empty."""
    return f"`{text}`" if text else ""


def arxiv(number: str) -> str:
    """A link to a paper."""
    return f"[{number}](https://arxiv.org/abs/{number})" if number else ""


def link(entry_point: str) -> str:
    """An entry point as a link to its source file, where it is one of this tree."""
    parts = entry_point.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        path = Path(*parts[:depth]).with_suffix(".py")
        if (ROOT / path).is_file():
            real = (ROOT / path).resolve().relative_to(ROOT).as_posix()  # rewards/ is linked into the package
            return f"[{'.'.join(parts[depth - 1 :])}](../{real})"
    return code(entry_point)


def entry(found: dict[str, Any]) -> str:
    """One loss: name, aliases, formula, paper, form, file."""
    names = ", ".join(code(name) for name in (found["name"], *found["aliases"]))
    file = f"[{Path(found['file']).name}](../{found['file']})"
    return row(names, code(found["formula"]), arxiv(found["arxiv"]), found["confidence"], file)


def losses_index() -> str:
    """The page of all losses, by kind."""
    lines = [MADE, "# Losses by name", "", f"{len(recipes.names())} losses, advantages, rewards and selection rules."]
    lines += ["`diffalign losses NAME` prints one in full; `recipes.get(NAME)` returns it, `recipes.KINDS` the calls."]
    lines += ["Form: `checked` against released code or the paper, `second-hand` from a port or review, `known`,"]
    lines += ["`derived` from an abstract or by algebra, `unsure`. Conventions: [Losses](losses.md).", ""]
    lines += [row("kind", "called with", "returns"), "|---|---|---|"]
    lines += [row(f"[{k.name}](#{k.name})", code(k.call), code(k.returns)) for k in recipes.KINDS.values()]
    for kind in recipes.KINDS.values():
        lines += ["", f"## {kind.name}", ""]
        lines += [row("name", "formula", "paper", "form", "file"), "|---|---|---|---|---|"]
        lines += [entry(recipes.describe(recipes.get(name))) for name in recipes.names(kind.name)]
    return "\n".join([*lines, ""])


def config(id: str) -> str:
    """The training recipe of a method, if there is one."""
    path = CONFIGS.get(spelling(id))
    return f"[{path.parent.name}/{path.stem}](../{path.relative_to(ROOT).as_posix()})" if path else ""


def paper(system: System) -> str:
    """One row of the ledger: paper, formula, entry point, configuration."""
    formula = recipes.get(system.id).formula if system.id in recipes.names() else ""
    found = link(system.entry_point) + (f"; {system.note}" if system.status == "partial" else "")
    title = f"{system.title} ({arxiv(system.arxiv)})" if system.arxiv else system.title
    return row(code(system.id), title, code(formula), found, system.confidence, config(system.id))


def paper_index() -> str:
    """The page of all papers with something to call."""
    built = [system for system in systems().values() if system.status in ("works", "partial")]
    works = [system for system in built if system.status == "works"]
    unsure = sum(system.confidence in UNSURE for system in works)
    lines = [MADE, "# Papers", "", "From paper to formula, entry point and training recipe; sorted by title."]
    lines += ["[BibTeX](losses.md#the-ledger): `diffalign.cite(ID)`.", ""]
    lines += [f"{unsure} of the {len(works)} working rows are derived or unsure forms: rebuilt from an abstract, a"]
    lines += ["review or by algebra, not compared with released code. Their row says so; check before you publish."]
    lines += ["", row("id", "paper", "formula", "entry point", "form", "recipe"), "|---|---|---|---|---|---|"]
    lines += [paper(system) for system in sorted(built, key=lambda s: re.sub(r"\W", "", s.title).casefold())]
    return "\n".join([*lines, ""])


PAGES = {"losses_index.md": losses_index, "paper_index.md": paper_index}


def main(arguments: list[str] | None = None) -> int:
    """Writes or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the pages")
    options = parser.parse_args(arguments)
    old = []
    for name, page in PAGES.items():
        path, text = options.docs / name, page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(name)
        if not options.check:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if old and options.check:
        print(f"not current: {', '.join(old)}; run `python scripts/make_index.py`")
    return 1 if old and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
