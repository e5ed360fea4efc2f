"""Imports run downward only: what each part of the package may import, held by reading the source.

Imports inside functions count as well: a late import hides a circle, it does not remove it.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "diffalign"

EVERYTHING = {
    "attention", "citations", "config", "cuda_ext", "data", "discrete", "evaluation", "losses", "merge", "models",
    "report", "rewards", "sampling", "search", "server", "shapes", "trainers",
}  # fmt: skip
BELOW_TRAINERS = {
    "sampling",
    "losses",
    "models",
    "data",
    "report",
    "rewards",
    "evaluation",
    "shapes",
    "config",
    "attention",
}

# Parts that every other may import: they import nothing of diffalign and no library.
BOTTOM = {"_lazy", "naming"}

# part -> the parts of diffalign that it may import beside those. A new part is a new row.
LAYERS: dict[str, set[str]] = {
    "_lazy": set(),
    "naming": set(),
    "losses": {"citations"},
    "sampling": set(),
    "evaluation": set(),
    "citations": set(),
    "cuda_ext": set(),
    "shapes": {"evaluation"},
    "attention": {"cuda_ext"},
    "config": set(),
    "merge": set(),
    "report": {"evaluation", "data"},
    "rewards": {"losses", "evaluation", "shapes", "data"},
    "data": {"evaluation", "shapes"},
    "models": {"sampling", "attention"},
    "discrete": {"losses", "sampling"},
    "trainers": BELOW_TRAINERS,
    "search": BELOW_TRAINERS,
    "server": {"rewards", "data"},
    "commands": EVERYTHING,
    "__main__": {"commands"},
    "__init__": set(),
}

# Parts that stay free of all but these libraries (the standard library is always allowed).
LIBRARIES: dict[str, set[str]] = {
    "losses": {"torch"},
    "evaluation": {"torch"},
    "shapes": {"torch"},
    "sampling": {"torch", "diffusers"},
    "citations": set(),
    "naming": set(),
    "config": {"yaml"},
}

# Trainers and search reach rewards through these doors only, never a plugin by its module.
REWARD_DOORS = {
    "diffalign.rewards",
    "diffalign.rewards.base",
    "diffalign.rewards.registry",
    "diffalign.rewards.scoring",
}


def part_of(module: str) -> str:
    """`diffalign.losses.policy` -> `losses`; `diffalign` -> ``."""
    return (module.split(".") + [""])[1]


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The dotted name that a `from ... import` starts from."""
    if not node.level:
        return node.module or ""
    base = module.split(".") if is_package else module.split(".")[:-1]
    base = base[: len(base) - node.level + 1]
    return ".".join(base + ([node.module] if node.module else []))


def imports(source: str, module: str, is_package: bool = False) -> set[str]:
    """Dotted names of all modules that a source imports; `from diffalign import part` counts as `diffalign.part`.

    Imports for type checkers alone do not count: they never run.
    """
    found: set[str] = set()
    tree = ast.parse(source)
    typed = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    hidden = {id(inner) for node in typed for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package)
            names = {f"{base}.{alias.name}" for alias in node.names}
            known = {name for name in names if base == "diffalign" and part_of(name) in LAYERS}
            found.update(known or {base})
    return found


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of one module that point upward, sideways or to a library its part stays free of."""
    part = part_of(module) or "__init__"
    out = []
    for name in sorted(imports(source, module, is_package)):
        top = name.split(".")[0]
        if top == "diffalign":
            target = part_of(name)
            if target and target not in {part, *BOTTOM, *LAYERS[part]}:
                out.append(
                    f"{module} imports {name}: {part} may import {sorted(LAYERS[part]) or 'nothing of diffalign'}"
                )
            elif part in ("trainers", "search") and target == "rewards" and name not in REWARD_DOORS:
                out.append(f"{module} imports {name}: rewards are reached through the registry")
        elif part in LIBRARIES and top not in LIBRARIES[part] | set(sys.stdlib_module_names):
            out.append(
                f"{module} imports {name}: {part} may import {sorted(LIBRARIES[part]) or 'the standard library'}"
            )
    return out


def modules() -> list[tuple[Path, str]]:
    """Every module of the package, the linked folders included."""
    links = [path.resolve() for path in PACKAGE.iterdir() if path.is_symlink()]
    found = []
    for root, name in [(PACKAGE, "diffalign"), *[(p, f"diffalign.{p.name}") for p in links]]:
        for path in sorted(root.rglob("*.py")):
            inner = path.relative_to(root).with_suffix("").parts
            if root == PACKAGE and inner[0] in {p.name for p in links}:
                continue  # a Python that follows links would list them twice
            found.append((path, ".".join([name, *inner]).removesuffix(".__init__")))
    return found


def test_every_part_has_a_row() -> None:
    missing = {part_of(name) for _, name in modules()} - set(LAYERS) - {""}
    assert not missing, f"no row in LAYERS for {sorted(missing)}"


def test_the_rows_have_no_circle() -> None:
    order = list(graphlib.TopologicalSorter(LAYERS).static_order())
    assert order.index("losses") < order.index("trainers") < order.index("commands")


def test_imports_run_downward() -> None:
    found = [v for path, name in modules() for v in violations(path.read_text(), name, path.name == "__init__.py")]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("diffalign.losses.policy", "from diffalign.trainers.base import Trainer"),
        ("diffalign.losses.policy", "def f():\n    import diffalign.models"),
        ("diffalign.losses.policy", "from diffalign import rewards"),
        ("diffalign.losses.policy", "from ..sampling import rollout"),
        ("diffalign.evaluation.geneval", "import numpy as np"),
        ("diffalign.trainers.base", "from diffalign.rewards.jpeg import JpegReward"),
        ("diffalign.models.sd3", "from diffalign.trainers import Trainer"),
    ],
)
def test_an_upward_import_is_seen(module: str, source: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "diffalign.losses.policy",
            "import math\nimport torch\nfrom diffalign.losses.common import check\nfrom . import common",
        ),
        ("diffalign.trainers.base", "from diffalign import rewards\nfrom diffalign.rewards.scoring import score"),
        ("diffalign.report.page", "from diffalign import __version__"),
    ],
)
def test_a_downward_import_passes(module: str, source: str) -> None:
    assert not violations(source, module)


def test_trainers_have_no_circle() -> None:
    """Inside the trainers, imports at any place but for types form no circle."""
    graph = {}
    for path in sorted((PACKAGE / "trainers").rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found = imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
        graph[module] = {name for name in found if name.startswith("diffalign.trainers.")}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())
