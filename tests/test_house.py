"""House rules that a reader would have to check by eye: sizes, lazy imports, public names, declared dependencies."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import diffalign

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for folder in ("diffalign", "rewards", "cuda_ext") for path in sorted((ROOT / folder).rglob("*.py"))]
HEAVY = {"accelerate", "diffusers", "open_clip", "peft", "transformers", "wandb", "torch"}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, the docstring left out."""
    whole = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return whole
    return whole - ((first.end_lineno or first.lineno) - first.lineno + 1)


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a fresh interpreter at the root of the checkout."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def is_kernel(path: Path) -> bool:
    """Whether a file holds Triton kernels: it needs Triton to be imported, and is imported where they are launched."""
    return path.name == "kernel.py" and path.relative_to(ROOT).parts[0] == "cuda_ext"


def module_names() -> list[str]:
    """Dotted names of all modules but `__main__`, through the links as users import them; kernels where Triton is."""
    found = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "diffalign" else ("diffalign", *parts)
        if parts[-1] != "__main__" and (find_spec("triton") or not is_kernel(path)):
            found.append(".".join(parts).removesuffix(".__init__"))
    return sorted(set(found))


def requirement_names(requirements: list[str]) -> set[str]:
    """`torch>=2.6` -> `torch`."""
    return {normal(re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0]) for line in requirements}


def normal(name: str) -> str:
    """The normal form of a distribution's name: `open_clip_torch` -> `open-clip-torch`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(node: ast.AST) -> set[str]:
    """Top-level names of the libraries that one statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return {node.module.split(".")[0]}
    return set()


def top_level_imports(node: ast.AST) -> set[str]:
    """Libraries imported when a module is imported: not inside functions, not for type checkers only."""
    found = imported(node)
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not typing_only:
            found |= top_level_imports(child)
    return found


def third_party(names: set[str]) -> set[str]:
    """Names that are neither ours nor Python's."""
    return names - set(sys.stdlib_module_names) - {"diffalign"}


def import_time_libraries() -> dict[str, set[str]]:
    """Library -> the files that import it at import time."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        if is_kernel(path):
            continue
        for name in third_party(top_level_imports(ast.parse(path.read_text()))):
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def all_libraries() -> set[str]:
    """Everything that the package imports anywhere, late imports included."""
    return third_party(
        {n for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) for n in imported(node)}
    )


def distributions(module: str) -> set[str]:
    """Names of the distributions that bring a module: `yaml` -> {`pyyaml`}."""
    return {normal(name) for name in metadata.packages_distributions().get(module, [module])}


def project() -> dict[str, Any]:
    """The project table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_no_function_above_80_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name}"
        for path in SOURCES
        for f in functions(path)
        if code_lines(f) > 80
    ]
    assert not [entry for entry in long if not entry.startswith("cuda_ext")]


def test_scripts_stay_short() -> None:
    lengths = {p.relative_to(ROOT): len(p.read_text().splitlines()) for p in (ROOT / "scripts").rglob("*.py")}
    assert not {path: n for path, n in lengths.items() if n > 150}


def test_importing_the_package_is_light() -> None:
    out = run(f"import sys, diffalign; print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))")
    assert out.stdout.strip() == "[]", out.stdout + out.stderr


def test_every_module_imports() -> None:
    done = run(f"import importlib\nfor name in {module_names()!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr[-3000:]


def test_only_base_dependencies_are_imported_at_import_time() -> None:
    allowed = requirement_names(project()["dependencies"])
    late = {name: sorted(paths) for name, paths in import_time_libraries().items() if not distributions(name) & allowed}
    assert not late, f"optional libraries are imported where they are used: {late}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import wandb", {"wandb"}),
        ("try:\n    import wandb\nexcept ImportError:\n    wandb = None", {"wandb"}),
        ("class A:\n    from wandb import x", {"wandb"}),
        ("def f():\n    import wandb", set()),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wandb", {"typing"}),
    ],
)
def test_import_time_is_told_from_late(source: str, expected: set[str]) -> None:
    assert set(top_level_imports(ast.parse(source))) == expected


def test_public_names_resolve() -> None:
    for name in diffalign.__all__:
        assert getattr(diffalign, name) is not None
        assert name in dir(diffalign)


def test_an_unknown_public_name_lists_the_known_ones() -> None:
    out = run("import diffalign; diffalign.trainer")
    assert "public names: " in out.stderr and "rewards" in out.stderr


def test_imports_are_declared_dependencies() -> None:
    extras = [line for lines in project()["optional-dependencies"].values() for line in lines]
    declared = requirement_names(project()["dependencies"] + extras)
    undeclared = {name for name in all_libraries() if not distributions(name) & declared}
    assert not undeclared, f"imported, but in no list of pyproject.toml: {sorted(undeclared)}"


def test_base_dependencies_are_used() -> None:
    used = {name for module in all_libraries() for name in distributions(module)}
    behind = {"numpy", "transformers"}  # Tensor.numpy() needs the one, the pipelines' text encoders the other
    assert not requirement_names(project()["dependencies"]) - used - behind


def test_tested_versions_cover_the_declared_dependencies() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    wanted = requirement_names(project()["dependencies"] + project()["optional-dependencies"]["dev"])
    assert not wanted - requirement_names(pins), "a dependency without a pin"
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in pins), "constraints are exact pins"
