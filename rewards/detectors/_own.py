"""A user's own function as a judge: `path/to/file.py:function`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffalign.evaluation.judges import Detection
from diffalign.rewards.detectors._records import from_json
from diffalign.rewards.files import load_function


class OwnJudge:
    """A function of a user's file, in the form of its role; detections may be objects of JSON as well."""

    cacheable = False
    """The file may import what changes, so its answers are not kept."""

    def __init__(self, role: str, spec: str, options: dict[str, Any]) -> None:
        """Loads the function; with options it is a factory that takes them and returns the judge.

        Raises:
            ValueError: If the file or the function is not there.
        """
        function = load_function(spec)
        self._judge: Callable[..., Any] = function(**options) if options else function
        self._role, self._options = role, options
        path, _, name = spec.rpartition(":")
        self.name = f"{Path(path).name}:{name}"
        self._file = Path(path).expanduser()

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result: its file's hash."""
        digest = hashlib.sha256(self._file.read_bytes()).hexdigest()[:16]
        options = {"options": self._options} if self._options else {}
        return {"name": self.name, "revision": f"sha256:{digest}", **options}

    def __call__(self, images: Any, *rest: Any) -> Any:
        """The function's answers, one per image.

        Raises:
            ValueError: If there are more or fewer, or a detection is none.
        """
        answers = self._judge(images, *rest)
        if self._role == "parse":  # reads one prompt, no batch
            return answers
        if len(answers) != len(images):
            raise ValueError(f"{self.name} returned {len(answers)} answers for {len(images)} images; give one each")
        if self._role != "detect":
            return answers
        found = [[self._detection(one) for one in objects] for objects in answers]
        return [sorted(objects, key=lambda one: -one.score) for objects in found]

    def _detection(self, one: Any) -> Detection:
        return one if isinstance(one, Detection) else from_json(one, self.name)
