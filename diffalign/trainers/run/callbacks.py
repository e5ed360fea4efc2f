"""Code of the user's that runs at points of the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer


class TrainOutput(NamedTuple):
    """Result of `train`.

    Attributes:
        global_step: optimiser steps made.
        metrics: numbers of the last step, as metrics.jsonl has them.
        comparison: gain over the untrained policy (needs compare), else None.
        report: path of the report page.
    """

    global_step: int
    metrics: dict[str, Any]
    comparison: dict[str, Any] | None
    report: Path


class Callback:
    """Override what is needed; every method gets the trainer. A true answer ends the run, saved, after the batch."""

    def on_train_begin(self, trainer: BaseTrainer) -> bool | None:
        """Before the first batch."""

    def on_step_end(self, trainer: BaseTrainer, step: int, metrics: Mapping[str, Any]) -> bool | None:
        """After each optimiser step, with the numbers of its log line."""

    def on_evaluate(self, trainer: BaseTrainer, step: int, metrics: Mapping[str, Any]) -> bool | None:
        """After each evaluation while training, with the numbers at the trained guidance scale."""

    def on_save(self, trainer: BaseTrainer, path: Path) -> bool | None:
        """After each checkpoint."""

    def on_train_end(self, trainer: BaseTrainer) -> bool | None:
        """After the weights were saved, before the final evaluation."""


def call(callbacks: Sequence[Callback], name: str, trainer: BaseTrainer, *values: Any) -> bool:
    """Run one method of every callback; true when any of them asked to stop."""
    return any([bool(getattr(callback, name)(trainer, *values)) for callback in callbacks])
