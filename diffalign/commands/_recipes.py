"""From the name of a recipe to its file."""

from __future__ import annotations

from pathlib import Path

from diffalign.config import nearest

FOLDER = Path(__file__).resolve().parent.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, `<model>/<method>`, sorted."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file that `--config` means: a path, or the name of a recipe.

    Raises:
        ValueError: neither; the nearest recipe and all of them are named.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f"--config {name} is a folder; give a YAML file in it")
    short = name.removesuffix(".yaml")
    if short in recipe_names():
        return FOLDER / f"{short}.yaml"
    valid = ", ".join(recipe_names()) or "none"
    raise ValueError(f"--config {name}: no such file, nor a recipe{nearest(short, recipe_names())}; recipes: {valid}")
