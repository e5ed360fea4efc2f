"""The wheel and the sdist hold what the source holds, and the linked folders import from each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "diffalign", "rewards", "cuda_ext", "scripts")
JUNK = ("__pycache__", "*.pyc", "*.egg-info", ".mypy_cache", ".ruff_cache")


def build(kind: str, source: Path, out: Path) -> Path:
    """Runs the build backend in a fresh interpreter; `kind` is wheel or sdist."""
    out.mkdir(parents=True, exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.iterdir()
    return built


def wheel_files(wheel: Path) -> set[str]:
    """Files of the package inside a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("diffalign/")}


def source_files(root: Path) -> set[str]:
    """Files under `diffalign/`, the linked folders walked as if they lay there."""
    found = set()
    for folder, subfolders, names in os.walk(root / "diffalign", followlinks=True):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        found.update((Path(folder) / name).relative_to(root).as_posix() for name in names if not name.endswith(".pyc"))
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, links kept as links: building writes into the source folder."""
    target = tmp_path_factory.mktemp("tree")
    for name in BUILT_FROM:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, target / name, symlinks=True, ignore=shutil.ignore_patterns(*JUNK))
        elif path.exists():
            shutil.copy2(path, target / name)
    return target


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made from the checkout."""
    return build("wheel", tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked_sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist made from the checkout, unpacked."""
    archive = build("sdist", tree, tmp_path_factory.mktemp("sdist"))
    target = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    (folder,) = target.iterdir()
    return folder


def test_the_wheel_holds_what_the_source_holds(tree: Path, wheel: Path) -> None:
    expected = source_files(tree)
    assert "diffalign/rewards/__init__.py" in expected and "diffalign/recipes/README.md" in expected
    assert wheel_files(wheel) == expected


def test_a_wheel_made_from_the_sdist_is_the_same(unpacked_sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert wheel_files(build("wheel", unpacked_sdist, tmp_path / "out")) == wheel_files(wheel)


def test_only_diffalign_is_installed_at_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"diffalign"}


def check_names(where: Path) -> None:
    """The package imports from `where`, and its own rewards are listed there."""
    code = "import diffalign.rewards as r; print(r.__file__); print(*r.names())"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=False, env=clean, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    origin, names = done.stdout.splitlines()
    assert Path(origin).is_relative_to(where)
    assert {"shapes", "jpeg"} <= set(names.split())


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    check_names(tmp_path)


def test_the_package_works_from_a_bare_checkout(tree: Path) -> None:
    check_names(tree)


@pytest.mark.parametrize("name", ["rewards", "cuda_ext"])
def test_bare_import_of_a_linked_folder_is_refused(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"import diffalign.{name}" in done.stderr


def test_the_links_are_relative() -> None:
    links = {path.name: os.readlink(path) for path in (ROOT / "diffalign").iterdir() if path.is_symlink()}
    assert links["rewards"] == os.path.join("..", "rewards")
    assert links["cuda_ext"] == os.path.join("..", "cuda_ext")
    assert links["recipes"] == os.path.join("..", "scripts", "recipes")
    assert not any(os.path.isabs(target) for target in links.values())
