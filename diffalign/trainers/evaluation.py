"""Scores of a policy on fixed prompts and seeds, at several guidance scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from diffalign.evaluation.geneval import summary
from diffalign.models import Adapter
from diffalign.rewards.base import Reward
from diffalign.rewards.scoring import score
from diffalign.sampling import StepPlan, Trajectory, noise_key, rollout
from diffalign.trainers.plans import evaluation_plan

Record = Mapping[str, Any]


def evaluate_policy(
    policy: Adapter,
    records: Sequence[Record],
    rewards: Mapping[str, Reward],
    *,
    guidance_scales: Sequence[float],
    num_inference_steps: int,
    images_per_prompt: int = 4,
    batch_size: int = 64,
    seed: int = 0,
    negative_prompt: str = "",
    progress: bool = True,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """Evaluate at each guidance scale on the same prompts, seeds and number of ODE steps.

    The first reward is the target: its mean over a prompt's images is the prompt's score, and the best guidance scale
    is the one with the highest overall target. Overall is the unweighted mean over tasks (the records' `tag`).

    Args:
        policy: the model.
        records: prompts with metadata.
        rewards: the target reward first, then those that are only reported.
        guidance_scales: scales to try.
        num_inference_steps: ODE steps.
        images_per_prompt: images per record.
        batch_size: images per forward.
        seed: seed of the evaluation's initial noise; image j of record i has one seed whatever the model or scale.
        negative_prompt: text of the unconditional branch.
        progress: show a progress bar.
        accelerator: shares the records out to its processes, which must all call; every one returns the whole.

    Returns:
        JSON-ready: guidance -> overall and tasks, the best scale, and per prompt at that scale its score and rewards.

    Raises:
        ValueError: no prompts or rewards, or a target that could not score anything.
    """
    if not records or not rewards:
        raise ValueError(f"evaluation needs prompts and rewards; got {len(records)} and {len(rewards)}")
    target = next(iter(rewards))
    rows = [record for record in records for _ in range(images_per_prompt)]
    seeds = evaluation_seeds(seed, len(rows))
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    # whole prompts, since some rewards compare the images of one
    shares = [[r for r in range(len(rows)) if r // images_per_prompt % world == i] for i in range(world)]
    own, own_seeds = [rows[r] for r in shares[rank]], [seeds[r] for r in shares[rank]]
    tables, results = {}, {}
    bar = tqdm(total=len(own) * len(guidance_scales), desc="evaluate", unit="image", disable=not progress)
    for scale in guidance_scales:
        plan = evaluation_plan(policy.schedule(num_inference_steps), scale)
        scores = _score_all(policy, plan, own, own_seeds, rewards, images_per_prompt, batch_size, negative_prompt, bar)
        results[scale] = scores if world == 1 else _joined(scores, shares)
        tables[scale] = _table(rows, results[scale][target])
    bar.close()
    best = max(guidance_scales, key=lambda scale: tables[scale]["overall"])
    return {
        "suite": target,
        "num_inference_steps": num_inference_steps,
        "images_per_prompt": images_per_prompt,
        "seed": seed,
        "best_guidance": best,
        "guidance": {str(float(scale)): tables[scale] for scale in guidance_scales},
        "prompts": _per_prompt(records, results[best], target, images_per_prompt),
        "seeds": seeds,
    }


def evaluation_seeds(seed: int, images: int) -> list[int]:
    """Seeds of an evaluation's images; image j of record i is number i * images_per_prompt + j."""
    return [noise_key(seed, index) & 0x7FFFFFFF for index in range(images)]


def decoded(trajectory: Trajectory) -> Tensor:
    """The images of a roll-out that was asked to decode."""
    if trajectory.images is None:
        raise ValueError("this roll-out was made with decode = False")
    return trajectory.images


def _joined(scores: Mapping[str, Tensor], shares: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The scores of all rows from those of each process."""
    parts = gather_object([{name: values.tolist() for name, values in scores.items()}])
    order = torch.tensor([row for share in shares for row in share]).argsort()
    return {name: torch.tensor([value for part in parts for value in part[name]])[order] for name in scores}


def _table(rows: Sequence[Record], scores: Tensor) -> dict[str, Any]:
    """Overall and tasks over the images that could be scored."""
    scored = [(dict(r["metadata"]) | {"tag": _task(r)}, float(v)) for r, v in zip(rows, scores, strict=True) if v == v]
    if not scored:
        raise ValueError("the target reward could not score a single image; `diffalign rewards check NAME` says why")
    table = summary([line for line, _ in scored], [value for _, value in scored])
    return {"overall": table["overall"], "tasks": table["tasks"]}


def _task(record: Record) -> str:
    return str(record["metadata"].get("tag", "all"))


@torch.no_grad()
def _score_all(
    policy: Adapter,
    plan: StepPlan,
    rows: Sequence[Record],
    seeds: Sequence[int],
    rewards: Mapping[str, Reward],
    images_per_prompt: int,
    batch_size: int,
    negative_prompt: str,
    bar: Any,
) -> dict[str, Tensor]:
    """(N,) scores by name; rewards that compare the images of a prompt see all images at once."""
    alone = {name: reward for name, reward in rewards.items() if reward.scope == "pointwise"}
    together = {name: reward for name, reward in rewards.items() if reward.scope != "pointwise"}
    parts: dict[str, list[Tensor]] = {name: [] for name in alone}
    kept: list[Tensor] = []
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        prompts = [record["prompt"] for record in chunk]
        with policy.meter.phase("evaluation"):
            out = rollout(policy, plan, prompts, seeds[start : start + batch_size], negative_prompt=negative_prompt)
        for name, values in score(alone, decoded(out), prompts, [r["metadata"] for r in chunk]).items():
            parts[name].append(values.cpu())
        if together:
            kept.append(decoded(out).cpu())
        bar.update(len(chunk))
    found = {name: torch.cat([torch.empty(0), *values]) for name, values in parts.items()}
    if together and rows:
        tagged = [{**record["metadata"], "group_id": i // images_per_prompt} for i, record in enumerate(rows)]
        found |= score(together, torch.cat(kept), [record["prompt"] for record in rows], tagged)
    return {name: found.get(name, torch.empty(0)) for name in rewards}


def _per_prompt(
    records: Sequence[Record], scores: Mapping[str, Tensor], target: str, images: int
) -> list[dict[str, Any]]:
    """Means over the images of each prompt that could be scored, None (null in JSON) where none could."""
    table = {name: values.view(-1, images).nanmean(1).tolist() for name, values in scores.items()}
    means = {name: [None if value != value else value for value in values] for name, values in table.items()}
    return [
        {
            "prompt": record["prompt"],
            "task": _task(record),
            "score": means[target][i],
            "rewards": {name: values[i] for name, values in means.items()},
        }
        for i, record in enumerate(records)
    ]
