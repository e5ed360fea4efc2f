"""Checks that a run must pass before it may train: a wrong run does not start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from diffalign.trainers.checks.check import Check
from diffalign.trainers.checks.dry_run import dry_run
from diffalign.trainers.checks.embeddings import embedded_once, no_encoder_left
from diffalign.trainers.checks.saved import plain_call, reload
from diffalign.trainers.run.weights import dropout

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer


def preflight(trainer: BaseTrainer, *, full: bool) -> list[Check]:
    """Collect one batch and check; nothing of the trainer is changed.

    Args:
        trainer: a trainer that has not started.
        full: also disturb images, count encoder calls, make one update, save, resume and reload (all undone).
    """
    batch = trainer.collect(0)
    checks = list(_cheap(trainer, batch))
    if full:
        checks += [*trainer.full_checks(batch), embedded_once(trainer), no_encoder_left(trainer.policy)]
        checks += [*dry_run(trainer, batch), plain_call(trainer), reload(trainer)]
    trainer.policy.meter.drain()
    trainer.clock.drain()
    return checks


def require(trainer: BaseTrainer, batch: Any) -> None:
    """The cheap checks on the first batch.

    Raises:
        ValueError: the checks that failed, with what was measured and what to do.
    """
    failed = [check for check in _cheap(trainer, batch) if not check.passed]
    if failed:
        lines = [f"- {check.name}: {check.figure}. {check.advice}" for check in failed]
        raise ValueError("this run would not learn:\n" + "\n".join(lines))


def _cheap(trainer: BaseTrainer, batch: Any) -> Iterator[Check]:
    count = sum(parameter.numel() for parameter in trainer.parameters)
    yield Check("trainable parameters", count > 0, f"{count:,}", "Give lora_r > 0, or 0 for all weights.")
    with dropout(trainer.policy, trainer.args.seed, 0):
        found = list(trainer.checks(batch))
    yield from found
