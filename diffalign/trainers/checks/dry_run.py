"""One update, a save and a resume, tried before a run and undone."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffalign.models import trainable_state
from diffalign.trainers.checks.check import Check
from diffalign.trainers.run.batch import as_one_update
from diffalign.trainers.run.checkpoints import load_checkpoint, save_checkpoint
from diffalign.trainers.run.weights import averaged, dropout

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer
    from diffalign.trainers.run.batch import Batch


@contextmanager
def restored_after(trainer: BaseTrainer) -> Iterator[dict[str, Any]]:
    """Weights, optimiser, averages and counters are as before afterwards; yields their snapshot."""
    before = copy.deepcopy(trainer.snapshot())
    try:
        yield before
    finally:
        trainer.restore(**copy.deepcopy(before))
        trainer.optimisation.skip_step()


def dry_run(trainer: BaseTrainer, batch: Batch) -> list[Check]:
    """Checks of one real update on a rollout, and of the checkpoint that would follow it."""
    with restored_after(trainer) as before:
        if trainer.ema is not None:
            trainer.ema.step(trainer.parameters)  # diffusers' first step copies; from the second on it averages
        checks = [_moves(trainer, batch, before["weights"])]
        if trainer.ema is not None:
            checks.append(_averages(trainer))
        trainer.state.step += 1
        checks.append(_resume(trainer, before))
    return checks


def _moves(trainer: BaseTrainer, batch: Batch, before: dict[str, Tensor]) -> Check:
    """One update at the full learning rate (warm-up starts at 0)."""
    rate = trainer.args.learning_rate
    batch = trainer.prepare(batch)
    update = as_one_update(batch)
    with dropout(trainer.policy, trainer.args.seed, 0):
        trainer.backward(batch, update)
    trainer.metrics(batch, update.rows)  # clears the statistics of the losses
    for group in trainer.optimisation.optimizer.param_groups:
        group["lr"] = rate
    result = trainer.optimisation.step()
    after = trainable_state(trainer.policy)
    moved = sum(not torch.equal(before[name], after[name]) for name in before)
    return Check(
        "trainable parameters move",
        moved > 0 and result.made and result.grad_norm > 0,  # weight decay alone moves them too
        f"{moved} of {len(before)} tensors changed, gradient norm {result.grad_norm:.3g} (learning rate {rate:g})",
        "No movement: the rewards carry no signal, nothing connects them to the weights, or the learning rate is 0.",
    )


def _averages(trainer: BaseTrainer) -> Check:
    """The averaged weights follow the trained ones, and are what an evaluation sees."""
    before = [p.clone() for p in trainer.ema.shadow_params]
    trainer.ema.step(trainer.parameters)
    after = trainer.ema.shadow_params
    moved = sum(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    with averaged(trainer.ema, trainer.parameters):
        pairs = zip(trainer.parameters, after, strict=True)
        seen = sum(torch.equal(p.detach().cpu(), a.detach().cpu().to(p.dtype)) for p, a in pairs)
    return Check(
        "averaged weights move",
        moved > 0 and seen == len(after),
        f"{moved} of {len(after)} averages moved, {seen} of them are what is evaluated and saved",
        "The averages are of other tensors than the trained ones: make the trainer after the LoRA, or set ema_decay 0.",
    )


def _resume(trainer: BaseTrainer, before: dict[str, Any]) -> Check:
    """Save, go back to the beginning, load: everything must change, into what was saved."""
    saved = copy.deepcopy(trainer.snapshot())
    with tempfile.TemporaryDirectory() as folder:
        path = save_checkpoint(Path(folder), trainer.state.step, **saved)
        trainer.restore(**copy.deepcopy(before))
        start = _flat(copy.deepcopy(trainer.snapshot()))
        trainer.restore(*load_checkpoint(path))
    loaded, wanted = _flat(trainer.snapshot()), _flat(saved)
    changed = sum(key not in start or not _equal(value, start[key]) for key, value in loaded.items())
    wrong = [key for key in wanted if key not in loaded or not _equal(wanted[key], loaded[key])]
    return Check(
        "resume changes the run and restores it",
        changed > 0 and not wrong,
        f"{changed} of {len(loaded)} values changed by loading, {len(wrong)} are not what was saved"
        + (f" (first: {wrong[0]})" if wrong else ""),
        "A resumed run would not be this run: do not train with this model class or optimiser before it is mended.",
    )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict, path -> leaf."""
    if isinstance(value, dict):
        pairs: Any = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = enumerate(value)
    else:
        return {path: value}
    return {name: leaf for key, inner in pairs for name, leaf in _flat(inner, f"{path}/{key}").items()}


def _equal(a: Any, b: Any) -> bool:
    return torch.equal(a.cpu(), b.cpu()) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)
