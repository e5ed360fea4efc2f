"""Checks that a run must pass before it may train: a wrong run does not start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from diffalign.rewards.scoring import score
from diffalign.trainers.checks import Check
from diffalign.trainers.dry_run import dry_run
from diffalign.trainers.embeddings import embedded_once, no_encoder_left
from diffalign.trainers.evaluation import decoded
from diffalign.trainers.saved import reload
from diffalign.trainers.trained import dropout

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer
    from diffalign.trainers.batch import Batch

GROUPS_LOOKED_AT = 8


def preflight(trainer: BaseTrainer, *, full: bool) -> list[Check]:
    """Roll out once and check; nothing of the trainer is changed.

    Args:
        trainer: a trainer that has not started.
        full: also disturb images, count encoder calls, make one update, save, resume and reload (all taken back).
    """
    batch = trainer.collect(0)
    checks = list(_cheap(trainer, batch))
    if full:
        checks += [*_sensitivity(trainer, batch), embedded_once(trainer), no_encoder_left(trainer)]
        checks += [*dry_run(trainer, batch), reload(trainer)]
    trainer.policy.meter.drain()
    trainer.clock.drain()
    return checks


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
    for name, values in trainer.flow.routed_scores(batch).items():
        if name not in trainer.combination.weights or not len(values):
            continue  # only logged, or no prompt of this roll-out takes its route
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
    asked = trainer.combination.routed(name, list(batch.spec.records))
    groups = batch.by_group(batch.rewards[name])[asked]
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
    images, records = decoded(micro.trajectory), [batch.spec.sample_records[int(i)] for i in micro.rows]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    prompts, metadata = [r["prompt"] for r in records], [r["metadata"] for r in records]
    counted = trainer.combination.weights
    alone = {name: r for name, r in trainer.rewards.items() if r.scope == "pointwise" and name in counted}
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
