"""metrics.jsonl, and the trackers beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from diffalign.trainers.run.trackers import tagged


class RunLog:
    """Appends one JSON object per event; only the main process writes.

    Args:
        folder: the run folder.
        accelerator: its trackers get the numbers of each step too.

    Attributes:
        last: the last optimiser step's line.
    """

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.path = folder / "metrics.jsonl"
        self.accelerator = accelerator
        self.last: dict[str, Any] = {}

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Append an event, non-finite numbers as null; returns what was written, on every process."""
        record = {"event": event, "step": step, **{key: _json_number(value) for key, value in values.items()}}
        self.last = record if event == "step" else self.last
        if not self.accelerator.is_main_process:
            return record
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        numbers = {k: v for k, v in record.items() if isinstance(v, (int, float)) and k != "step"}
        self.accelerator.log(tagged(event, numbers), step=step)
        return record

    def truncate(self, step: int) -> None:
        """Drop the events after `step`: a resumed run repeats them."""
        if not self.accelerator.is_main_process or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # the line that was being written when the run was killed
        shorter = self.path.with_suffix(".tmp")
        shorter.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        shorter.replace(self.path)


def _json_number(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
