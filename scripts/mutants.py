"""Mutation run: does a test fail when a formula is changed? `make mutants`, `python scripts/mutants.py --file policy`.

Every source of a package is changed in one place at a time (mutations.py lists the kinds) and its own test file run
against the change: `diffalign/losses/recipes/x.py` against `tests/losses/recipes/test_x.py`. Prints the share that the
tests notice and every change that they do not. `mutants_accepted.toml` says why some may stay, by file, function and
the statement as changed; they still count as unnoticed, and an entry that matches no survivor is called stale.
Exit status 1 below 95 %. Tests are collected once per file, in a process that forks for each change, so that nothing
is imported twice. POSIX only.
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

from mutant_runs import LATE, PASSED, run_all
from mutations import mutants

WANTED = 0.95
HERE = Path(__file__).resolve().parent
ENTRY = {"file", "function", "mutation", "reason"}
Reasons = dict[tuple[str, str, str], str]  # by file, function, and statement as changed


def chosen(path: Path, only: list[str]) -> bool:
    """Whether the path holds one of the parts given, if any are."""
    return not only or any(part in str(path) for part in only)


def sources(package: Path, only: list[str]) -> list[Path]:
    """Files that have something to change, the longest work first; `only` holds parts of their paths."""
    sizes = {path: len(mutants(path.read_text())) for path in sorted(package.rglob("*.py")) if chosen(path, only)}
    return sorted((path for path in sizes if sizes[path]), key=lambda path: -sizes[path])


def test_file(source: Path, package: Path, tests: Path) -> Path:
    """The test file of a source: the same place below `tests`, `test_` before the name."""
    inner = source.relative_to(package)
    return tests / inner.parent / f"test_{inner.name}"


def accepted(path: Path, root: Path, only: list[str]) -> Reasons:
    """Why each change of the chosen files survives, where a reason is known."""
    if not path.is_file():
        return {}
    entries = tomllib.loads(path.read_text()).get("accepted", [])
    if wrong := [entry for entry in entries if entry.keys() != ENTRY]:
        raise SystemExit(f"{path}: each [[accepted]] has {', '.join(sorted(ENTRY))} and no more, unlike {wrong[0]}")
    mine = [entry for entry in entries if chosen(root / entry["file"], only)]
    return {(entry["file"], entry["function"], entry["mutation"]): entry["reason"] for entry in mine}


def examine(job: tuple[str, str, str]) -> dict[str, Any]:
    """Tests every change of one file, in a process of its own. Returns the number of changes and the survivors."""
    root, source, test = (Path(part) for part in job)
    os.chdir(root)
    found, start = mutants(source.read_text()), time.time()
    result: dict[str, Any] = {"file": source.relative_to(root).as_posix(), "changes": len(found), "error": ""}
    outcomes = [PASSED] * len(found)
    if test.is_file():
        module = ".".join(source.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        outcomes, result["error"] = run_all(module, [change.source for change in found], test)
    else:
        result["error"] = f"{test.relative_to(root)} does not exist"
    result["late"] = outcomes.count(LATE)
    result["survivors"] = [
        {"line": one.line, "function": one.function, "change": one.change, "mutation": one.statement}
        for one, outcome in zip(found, outcomes, strict=True)
        if outcome == PASSED
    ]
    result["seconds"] = time.time() - start
    return result


def matching(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What an accepted entry must say of each survivor."""
    return [(result["file"], one["function"], one["mutation"]) for one in result["survivors"]]


def report(result: dict[str, Any], reasons: Reasons) -> None:
    """One file: its share, then its survivors with the reason, if there is one."""
    killed = result["changes"] - len(result["survivors"])
    late = f", {result['late']} past the limit of time" if result["late"] else ""
    seconds = f"{result['seconds']:.0f} s  {result['error']}".rstrip()
    print(f"{result['file']}: {killed} of {result['changes']} noticed{late}, {seconds}")
    for one, key in zip(result["survivors"], matching(result), strict=True):
        reason = reasons.get(key, "no reason given")
        print(f"  {result['file']}:{one['line']}: {one['function']}: {one['change']}   [{reason}]")
        print("      " + one["mutation"].replace("\n", "\n      "))
    sys.stdout.flush()


def conclude(results: list[dict[str, Any]], reasons: Reasons, seconds: float) -> float:
    """Prints the sums; returns the share of changes that were noticed."""
    alive = [key for result in results for key in matching(result)]
    for file, function, mutation in sorted(reasons.keys() - alive):
        print(f"stale: {file}: {function}: {mutation}")
    total, unexplained = sum(result["changes"] for result in results), sum(key not in reasons for key in alive)
    share = 1 - len(alive) / total
    print(f"{len(alive)} survive, {unexplained} of them without a reason")
    print(f"noticed: {100 * share:.2f} % of {total} changes in {len(results)} files, {seconds:.0f} s")
    return share


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=HERE.parent, help="folder that holds the package and the tests")
    parser.add_argument("--package", type=Path, default=Path("diffalign/losses"))
    parser.add_argument("--tests", type=Path, default=Path("tests/losses"))
    parser.add_argument("--file", action="append", default=[], help="part of a path; may be given several times")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--preload", default="torch", help="what tests import anyway, imported once before the forks")
    parser.add_argument("--accepted", type=Path, default=HERE / "mutants_accepted.toml")
    parser.add_argument("--json", type=Path, help="also write the results to this file, one line for each source")
    return parser.parse_args()


def main() -> int:
    """Runs everything; 0 if enough changes are noticed."""
    given = options()
    root = given.root.resolve()
    package, start = root / given.package, time.time()
    reasons = accepted(given.accepted, root, given.file)
    jobs = [(str(root), str(f), str(test_file(f, package, root / given.tests))) for f in sources(package, given.file)]
    if not jobs:
        raise SystemExit(f"nothing to change under {package} with --file {given.file}")
    sys.path[:0] = [str(root)]
    os.environ["OMP_NUM_THREADS"] = "1"
    importlib.import_module(given.preload)
    results = []
    with multiprocessing.get_context("fork").Pool(given.jobs, maxtasksperchild=1) as pool:
        for result in pool.imap_unordered(examine, jobs):
            results.append(result)
            report(result, reasons)
    if given.json:
        given.json.write_text("".join(json.dumps(result) + "\n" for result in results))
    return 0 if conclude(results, reasons, time.time() - start) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
