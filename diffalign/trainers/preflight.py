"""Checks that a run must pass before it may train: a wrong run does not start."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from diffalign.models import load_trainable_state, trainable_state
from diffalign.rewards.scoring import score
from diffalign.trainers.evaluation import decoded
from diffalign.trainers.trained import dropout

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer
    from diffalign.trainers.batch import Batch

GROUPS_LOOKED_AT = 8


class Check(NamedTuple):
    """One thing looked at.

    Attributes:
        name: what was checked.
        passed: whether it holds.
        figure: what was measured.
        advice: what to do when it does not hold.
    """

    name: str
    passed: bool
    figure: str
    advice: str


def preflight(trainer: BaseTrainer, *, full: bool) -> list[Check]:
    """Roll out once and check; nothing of the trainer is changed.

    Args:
        trainer: a trainer that has not started.
        full: also disturb images and make one update (which is taken back).
    """
    batch = trainer.collect(0)
    checks = list(_cheap(trainer, batch))
    if full:
        checks += [*_sensitivity(trainer, batch), _moves(trainer, batch)]
    trainer.policy.meter.drain()
    trainer.clock.drain()
    return checks


def _counted(trainer: BaseTrainer) -> dict[str, bool]:
    """Reward name -> whether it is trained; one of weight 0 is only logged."""
    weights = trainer.args.reward_weights or [1.0] * len(trainer.rewards)
    return {name: weight != 0 for name, weight in zip(trainer.rewards, weights, strict=True)}


def require(trainer: BaseTrainer, batch: Batch) -> None:
    """The cheap checks on the first roll-out.

    Raises:
        ValueError: the checks that failed, with what was measured and what to do.
    """
    failed = [check for check in _cheap(trainer, batch) if not check.passed]
    if failed:
        lines = [f"- {check.name}: {check.figure}. {check.advice}" for check in failed]
        raise ValueError("this run would not learn:\n" + "\n".join(lines))


def _cheap(trainer: BaseTrainer, batch: Batch) -> Iterator[Check]:
    count = sum(parameter.numel() for parameter in trainer.parameters)
    yield Check("trainable parameters", count > 0, f"{count:,}", "Give lora_r > 0, or 0 for all weights.")
    for name, values in batch.rewards.items():
        if not _counted(trainer)[name]:
            continue
        share = float(values.isnan().float().mean())
        yield Check(
            f"reward {name} is finite",
            share < 0.5,
            f"{share:.0%} of {len(values)} samples could not be scored",
            f"`diffalign rewards check {name}` shows what the reward needs.",
        )
        yield _spread(trainer, batch, name)
    with dropout(trainer.policy, trainer.args.seed, 0):
        found = list(trainer.checks(batch))
    yield from found


def _spread(trainer: BaseTrainer, batch: Batch, name: str) -> Check:
    groups = batch.by_group(batch.rewards[name])
    if trainer.args.advantage == "running":
        groups = groups.reshape(1, -1)  # compared across prompts until each has its own history
    looked = groups[:GROUPS_LOOKED_AT]
    varied = sum(bool(row[~row.isnan()].numel()) and float(row[~row.isnan()].std(correction=0)) > 0 for row in looked)
    return Check(
        f"reward {name} tells images of a group apart",
        varied > 0,
        f"{varied} of {len(looked)} groups have reward spread",
        "A group without spread teaches nothing: use a softer reward, easier prompts, larger groups or more noise.",
    )


@torch.no_grad()
def _sensitivity(trainer: BaseTrainer, batch: Batch) -> Iterator[Check]:
    if not batch.mine:
        return  # more processes than micro-batches
    micro = next(iter(batch.mine.values()))
    images, records = decoded(micro.trajectory), [batch.draw.sample_records[int(i)] for i in micro.rows]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    prompts, metadata = [r["prompt"] for r in records], [r["metadata"] for r in records]
    counted = _counted(trainer)
    alone = {name: r for name, r in trainer.rewards.items() if r.scope == "pointwise" and counted[name]}
    clean = score(alone, images, prompts, metadata)
    noised = score(alone, 0.3 * images + 0.7 * noise, prompts, metadata)
    for name in alone:
        change = float((clean[name] - noised[name]).abs().nanmean())
        yield Check(
            f"reward {name} sees noise",
            change > 0,
            f"mean change {change:.3g} when images are drowned in noise",
            "A reward that scores noise like an image cannot guide: check its input range and preprocessing.",
        )


def _moves(trainer: BaseTrainer, batch: Batch) -> Check:
    """One real update at the full learning rate (warm-up starts at 0), taken back."""
    rate = trainer.args.learning_rate
    before = trainable_state(trainer.policy)
    optimiser = copy.deepcopy(trainer.optimisation.state_dict())
    history = dict(trainer.state.history)
    feedback = trainer.feedback(batch)
    chunk = torch.arange(batch.draw.samples)
    with dropout(trainer.policy, trainer.args.seed, 0):
        for micro in batch.mine.values():
            for loss in trainer.losses(batch, micro, feedback, chunk):
                trainer.optimisation.backward(loss)
    trainer.metrics(batch, feedback, chunk)  # takes the notes of the losses away
    for group in trainer.optimisation.optimizer.param_groups:
        group["lr"] = rate
    result = trainer.optimisation.step()
    after = trainable_state(trainer.policy)
    moved = sum(not torch.equal(before[name], after[name]) for name in before)
    load_trainable_state(trainer.policy, before)
    trainer.optimisation.load_state_dict(optimiser)
    trainer.state.history = history
    return Check(
        "trainable parameters move",
        moved > 0 and result.made and result.grad_norm > 0,  # weight decay alone moves them too
        f"{moved} of {len(before)} tensors changed, gradient norm {result.grad_norm:.3g} (learning rate {rate:g})",
        "No movement: the rewards carry no signal, nothing connects them to the weights, or the learning rate is 0.",
    )
