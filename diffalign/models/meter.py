"""Integer counts of model evaluations, by phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class Meter:
    """Counts per-image forwards and backwards of the denoiser under the name of the phase they happen in.

    Attributes:
        counts: "forward/<phase>" and "backward/<phase>" -> images.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._phase = "other"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything inside is counted under `name`."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def watch(self, output: Tensor) -> Tensor:
        """Count one forward of ``output.shape[0]`` images, and its backward if one ever reaches it."""
        images, phase = int(output.shape[0]), self._phase
        self.counts[f"forward/{phase}"] += images
        if output.requires_grad:

            def count(_: Tensor) -> None:
                self.counts[f"backward/{phase}"] += images

            output.register_hook(count)
        return output

    def drain(self) -> dict[str, int]:
        """The counts so far, which start again at zero."""
        counts = dict(self.counts)
        self.counts.clear()
        return counts
