"""The contents of a run folder for a report: what is missing or broken is named on the page, never raised."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffalign.report.compare import compare
from diffalign.report.metrics_log import Metrics, read_metrics

__all__ = ["RunFolder", "read_run"]

Json = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """Contents of a run folder.

    Attributes:
        path: The folder.
        config_text: `config.yaml` as written, "" where absent.
        config: The same as a dictionary, empty where absent or broken.
        metrics: Rows of `metrics.jsonl`.
        before: `evaluation/before.json` or None.
        after: `evaluation/after.json` or None.
        comparison: `evaluation/comparison.json`, else computed from the two above, else None.
        samples: `images/samples.json` or None.
        missing: Sentences on what is not there.
    """

    path: Path
    config_text: str
    config: Json
    metrics: Metrics
    before: Json | None
    after: Json | None
    comparison: Json | None
    samples: Json | None
    missing: list[str]

    @property
    def name(self) -> str:
        """The run's name from its configuration, else the folder's."""
        return str(self.config.get("run_name") or self.path.resolve().name)


def read_run(run_dir: str | Path) -> RunFolder:
    """Read a run folder.

    Args:
        run_dir: The trainer's `output_dir`; complete, unfinished or still being written.

    Raises:
        ValueError: If it is not a folder.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: give the output_dir of a run")
    missing: list[str] = []
    config_text = _text(path / "config.yaml", missing, "the settings of the run are unknown")
    metrics = read_metrics(path / "metrics.jsonl")
    if not metrics.steps:
        missing.append("metrics.jsonl has no optimisation step: training had not begun.")
    config = _yaml(config_text, missing)
    expected: list[str] = []
    before = _json(path / "evaluation/before.json", expected, "there is no score to start from")
    after = _json(path / "evaluation/after.json", expected, "the run was stopped before its last evaluation")
    samples = _json(path / "images/samples.json", expected, "no pictures were kept")
    off = config.get("compare") is False and not (before or after)
    missing += ["The run does not compare before and after (`compare: false`)."] if off else expected
    comparison = _comparison(path / "evaluation/comparison.json", before, after, missing)
    return RunFolder(path, config_text, config, metrics, before, after, comparison, samples, missing)


def _text(path: Path, missing: list[str], why: str) -> str:
    """Content of a text file; a sentence where it is absent."""
    if not path.is_file():
        missing.append(f"{path.name} is missing: {why}.")
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _json(path: Path, missing: list[str], why: str) -> Json | None:
    """Object in a JSON file; a sentence where it is absent or broken."""
    where = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        missing.append(f"{where} is missing: {why}.")
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        missing.append(f"{where} cannot be read ({error}): it was cut off while being written.")
        return None
    if isinstance(content, dict):
        return content
    missing.append(f"{where} holds no JSON object: evaluate again.")
    return None


def _yaml(text: str, missing: list[str]) -> Json:
    """Configuration as a dictionary."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        missing.append("config.yaml is not valid YAML; it is shown as text.")
        return {}
    return content if isinstance(content, dict) else {}


def _comparison(path: Path, before: Json | None, after: Json | None, missing: list[str]) -> Json | None:
    """The stored comparison, or one made here; a sentence where the two evaluations do not belong together."""
    stored = _json(path, [], "") or {}
    if {"overall", "tasks"} <= stored.keys():
        return stored
    if before is None or after is None:
        return None
    try:
        return compare(before, after)
    except ValueError as error:
        missing.append(f"No comparison: {error}.")
        return None
