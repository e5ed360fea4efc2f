"""The bar of a training on the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

__all__ = ["StepBar"]


class StepBar:
    """Optimisation steps, the reward of the latest step, and the time that is left for training alone.

    The rate is the mean since the start: several steps share one rollout, so that their own times say little.

    Args:
        total: steps of the whole run.
        initial: steps made before a resume.
        disable: show nothing (processes other than the main one).
    """

    def __init__(self, total: int, initial: int = 0, *, disable: bool = False) -> None:
        self._bar = tqdm(total=total, initial=initial, desc="train", unit="step", smoothing=0, disable=disable)

    def step(self, reward: float | None = None) -> None:
        """One step was made, on images of this mean reward."""
        known = reward is not None and math.isfinite(reward)
        self._bar.set_postfix_str(f"reward {reward:.3f}" if known else "", refresh=False)  # before it is drawn
        self._bar.update(1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside is no part of the rate: evaluations, checks and pictures between steps."""
        start = time.time()
        try:
            yield
        finally:
            if not self._bar.disable:
                self._bar.start_t += time.time() - start

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
