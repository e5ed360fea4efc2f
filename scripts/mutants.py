"""Mutation run: does a test fail when a formula is changed? `make mutants`, `python scripts/mutants.py --file policy`.

Every source of a package is changed in one place at a time (mutations.py lists the kinds) and its own test file run
against the change: `diffalign/losses/recipes/x.py` against `tests/losses/recipes/test_x.py`. Prints the share that the
tests notice and every change that they do not. `mutants_accepted.toml` says why some may stay; they still count as
unnoticed. Exit status 1 below 95 %.

Tests are collected once per file, in a process that forks for each change, so that nothing is imported twice.
POSIX only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from mutant_runs import run_all
from mutations import mutants

WANTED = 0.95


def sources(package: Path, only: list[str]) -> list[Path]:
    """Files that have something to change, the longest work first; `only` holds parts of their paths."""
    found = [path for path in sorted(package.rglob("*.py")) if not only or any(part in str(path) for part in only)]
    sizes = {path: len(mutants(path.read_text())) for path in found}
    return sorted((path for path in found if sizes[path]), key=lambda path: -sizes[path])


def test_file(source: Path, package: Path, tests: Path) -> Path:
    """The test file of a source: the same place below `tests`, `test_` before the name."""
    inner = source.relative_to(package)
    return tests / inner.parent / f"test_{inner.name}"


def accepted(path: Path) -> dict[tuple[str, str, str], str]:
    """Reason of each change that may survive, by file, source line and change: lines move, their text stays."""
    if not path.is_file():
        return {}
    entries = tomllib.loads(path.read_text()).get("accepted", [])
    return {(entry["file"], entry["line"].strip(), entry["change"]): entry["reason"] for entry in entries}


def examine(job: tuple[str, str, str]) -> dict[str, Any]:
    """Tests every change of one file, in a process of its own. Returns the number of changes and the survivors."""
    root, source, test = (Path(part) for part in job)
    os.chdir(root)
    found, lines, start = mutants(source.read_text()), source.read_text().splitlines(), time.time()
    result: dict[str, Any] = {"file": source.relative_to(root).as_posix(), "changes": len(found), "error": ""}
    noticed = [False] * len(found)
    if test.is_file():
        module = ".".join(source.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        noticed, result["error"] = run_all(module, [change.source for change in found], test)
    else:
        result["error"] = f"{test.relative_to(root)} does not exist"
    result["survivors"] = [
        {"number": change.line, "line": lines[change.line - 1].strip(), "change": change.change}
        for change, seen in zip(found, noticed, strict=True)
        if not seen
    ]
    result["seconds"] = time.time() - start
    return result


def report(result: dict[str, Any], reasons: dict[tuple[str, str, str], str]) -> None:
    """One file: its share, then its survivors with the reason, if there is one."""
    alive = result["survivors"]
    killed = result["changes"] - len(alive)
    print(f"{result['file']}: {killed} of {result['changes']} noticed, {result['seconds']:.0f} s  {result['error']}")
    for one in alive:
        reason = reasons.get((result["file"], one["line"], one["change"]), "no reason given")
        print(f"  {result['file']}:{one['number']}: {one['change']}   [{reason}]\n      {one['line']}")
    sys.stdout.flush()


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("--root", type=Path, default=here.parent, help="folder that holds the package and the tests")
    parser.add_argument("--package", type=Path, default=Path("diffalign/losses"))
    parser.add_argument("--tests", type=Path, default=Path("tests/losses"))
    parser.add_argument("--file", action="append", default=[], help="part of a path; may be given several times")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--preload", default="torch", help="what tests import anyway, imported once before the forks")
    parser.add_argument("--accepted", type=Path, default=here / "mutants_accepted.toml")
    parser.add_argument("--json", type=Path, help="also write the results to this file, one line for each source")
    return parser.parse_args()


def main() -> int:
    """Runs everything; 0 if enough changes are noticed."""
    given = options()
    root = given.root.resolve()
    package, reasons, start = root / given.package, accepted(given.accepted), time.time()
    files = sources(package, given.file)
    if not files:
        raise SystemExit(f"nothing to change under {package} with --file {given.file}")
    jobs = [(str(root), str(f), str(test_file(f, package, root / given.tests))) for f in files]
    sys.path[:0] = [str(root)]
    os.environ["OMP_NUM_THREADS"] = "1"
    importlib.import_module(given.preload)
    results = []
    with multiprocessing.get_context("fork").Pool(given.jobs, maxtasksperchild=1) as pool:
        for result in pool.imap_unordered(examine, jobs):
            report(result, reasons)
            results.append(result)
    if given.json:
        given.json.write_text("".join(json.dumps(result) + "\n" for result in results))
    total = sum(result["changes"] for result in results)
    share = 1 - sum(len(result["survivors"]) for result in results) / total
    print(f"noticed: {100 * share:.2f} % of {total} changes in {len(results)} files, {time.time() - start:.0f} s")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
