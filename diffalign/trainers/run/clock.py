"""Seconds by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Wall-clock seconds under the name of a phase; waits for the accelerator at the borders."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything inside is timed under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds[name] += time.perf_counter() - start

    def drain(self) -> dict[str, float]:
        """ "seconds/<phase>" so far, which start again at zero."""
        out = {f"seconds/{name}": round(value, 4) for name, value in self.seconds.items()}
        self.seconds.clear()
        return out
