"""Steps that are left out: counted, named, and too many of them end the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer
    from diffalign.trainers.batch import Batch
    from diffalign.trainers.optimisation import StepResult


def skipped(trainer: BaseTrainer, result: StepResult, batch: Batch) -> None:
    """Log a step that changed nothing, on every process alike.

    Raises:
        RuntimeError: more than max_skipped_steps of them; the last one's step and cause.
    """
    state = trainer.state
    state.skipped += 1
    text = f"step {state.step}: skipped, {_cause(trainer, result, batch)}"
    trainer.log.write("warning", state.step, {"message": text})
    if state.skipped > trainer.args.max_skipped_steps:
        raise RuntimeError(f"{text}; {state.skipped} steps were skipped, more than max_skipped_steps allows")


def _cause(trainer: BaseTrainer, result: StepResult, batch: Batch) -> str:
    causes = []
    if result.broken:
        named = [name for name, p in trainer.policy.denoiser.named_parameters() if p.requires_grad]
        first = named[result.broken[0]]
        causes.append(f"the gradient of {first} ({len(result.broken)} tensors) is not finite")
    if result.bad_losses:
        causes.append(f"{result.bad_losses} terms of the loss are not finite")
    if not causes:
        columns = {name: batch.rewards[name] for name in trainer.combination.weights}
        dead = [f"{name}: {int(values.isnan().sum())} NaN" for name, values in columns.items()]
        causes.append(
            f"none of its images could be scored (of {batch.spec.samples} in the roll-out, {', '.join(dead)})"
        )
    return " and ".join(causes)
