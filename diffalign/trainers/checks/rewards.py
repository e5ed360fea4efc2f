"""Checks of rewards on a first rollout."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from diffalign.rewards.scoring import score
from diffalign.trainers.checks.check import Check
from diffalign.trainers.rollouts.batch import RolloutBatch
from diffalign.trainers.rollouts.reward_flow import RewardFlow
from diffalign.trainers.run.evaluation import decoded

GROUPS = 8
"""Groups whose spread is looked at."""


def reward_checks(batch: RolloutBatch, flow: RewardFlow, *, across_prompts: bool) -> Iterator[Check]:
    """Each counted reward is finite, and differs inside the groups that are compared.

    Args:
        batch: the rollout.
        flow: its rewards.
        across_prompts: images of different prompts are compared too.
    """
    for name, values in flow.routed_scores(batch).items():
        if name not in flow.combination.weights or not len(values):
            continue  # only logged, or no prompt of this rollout takes its route
        failed = float(values.isnan().float().mean())
        yield Check(
            f"reward {name} is finite",
            failed < 0.5,
            f"{failed:.0%} of {len(values)} samples could not be scored",
            f"`diffalign rewards check {name}` shows what the reward needs.",
        )
        yield _spread(batch, flow, name, across_prompts)


def _spread(batch: RolloutBatch, flow: RewardFlow, name: str, across_prompts: bool) -> Check:
    routed = flow.combination.routed(name, list(batch.spec.records))
    groups = batch.by_group(batch.rewards[name])[routed]
    groups = groups.reshape(1, -1) if across_prompts else groups
    checked = groups[:GROUPS]
    varied = sum(bool(row[~row.isnan()].numel()) and float(row[~row.isnan()].std(correction=0)) > 0 for row in checked)
    return Check(
        f"reward {name} differs within groups",
        varied > 0,
        f"{varied} of {len(checked)} groups have reward spread",
        "A group without spread teaches nothing: use a softer reward, easier prompts, larger groups or more noise.",
    )


@torch.no_grad()
def sensitivity(batch: RolloutBatch, flow: RewardFlow) -> Iterator[Check]:
    """Each counted pointwise reward changes when images are drowned in noise."""
    if not batch.mine:
        return  # more processes than micro-batches
    micro = next(iter(batch.mine.values()))
    images, records = decoded(micro.trajectory), [batch.spec.sample_records[int(i)] for i in micro.rows]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    prompts, metadata = [r["prompt"] for r in records], [r["metadata"] for r in records]
    counted = flow.combination.weights
    pointwise = {name: r for name, r in flow.rewards.items() if r.scope == "pointwise" and name in counted}
    clean = score(pointwise, images, prompts, metadata)
    noised = score(pointwise, 0.3 * images + 0.7 * noise, prompts, metadata)
    for name in pointwise:
        change = float((clean[name] - noised[name]).abs().nanmean())
        yield Check(
            f"reward {name} sees noise",
            change > 0,
            f"mean change {change:.3g} when images are drowned in noise",
            "A reward that scores noise like an image cannot guide: check its input range and preprocessing.",
        )
