"""YAML as configurations are written in: numbers like 1e-4 are numbers, at every depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's floats: YAML 1.1, which PyYAML reads, takes `1e-4` for text."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:float"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: not valid YAML.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: no object is ever constructed
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from error


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty file has none.

    Raises:
        ValueError: not valid YAML, or something else than a mapping.
    """
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8-sig")) or {}
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold `key: value` lines; it holds a {type(values).__name__}")
    return values


def write_mapping(values: dict[str, Any], path: str | Path) -> None:
    """Write keys and values in their order."""
    Path(path).write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
