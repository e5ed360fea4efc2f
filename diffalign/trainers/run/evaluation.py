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
from diffalign.sampling import Schedule, StepPlan, Trajectory, make_plan, noise_key, ode, rollout
from diffalign.trainers.run.batch import Record


def evaluate_policy(
    policy: Adapter,
    records: Sequence[Record],
    rewards: Mapping[str, Reward],
    *,
    guidance_scales: Sequence[float],
    num_inference_steps: int,
    images_per_prompt: int = 4,
    images_per_scale: int | None = None,
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
        images_per_scale: how many of them choose the scale, from the first on; the best scale is then measured on all.
            None, or a single scale: all.
        batch_size: images per forward.
        seed: seed of the evaluation's initial noise; image j of record i has one seed whatever the model or scale.
        negative_prompt: text of the unconditional branch.
        progress: show a progress bar.
        accelerator: shares the records out to its processes, which must all call; every one returns the whole.

    Returns:
        JSON-ready: guidance -> overall and tasks, the best scale, and per prompt at that scale its score and rewards.

    Raises:
        ValueError: no prompts or rewards, more images to choose by than there are, or a target that could not score
            anything.
    """
    if not records or not rewards:
        raise ValueError(f"evaluation needs prompts and rewards; got {len(records)} and {len(rewards)}")
    few = choosing_images(guidance_scales, images_per_prompt, images_per_scale)
    if not 1 <= few <= images_per_prompt:
        raise ValueError(f"images_per_scale = {few} must lie in 1..{images_per_prompt}, the images per prompt")
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    share = range(rank, len(records), world)  # whole prompts, since some rewards compare the images of one
    passes = len(guidance_scales) * few + (images_per_prompt if few < images_per_prompt else 0)
    bar = tqdm(total=len(share) * passes, desc="evaluate", unit="image", disable=not progress)
    seeds = evaluation_seeds(seed, len(records) * images_per_prompt)
    target = next(iter(rewards))

    def measured(scale: float, images: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(records, images) scores by name at one scale, of the first images of each prompt; the target's table."""
        plan = evaluation_plan(policy.schedule(num_inference_steps), scale)
        rows = [records[i] for i in share for _ in range(images)]
        own = [seeds[i * images_per_prompt + j] for i in share for j in range(images)]
        scores = _score_all(policy, plan, rows, own, rewards, images, batch_size, negative_prompt, bar)
        parts = {name: values.view(len(share), images) for name, values in scores.items()}
        whole = parts if world == 1 else _joined(parts, len(records))
        return whole, _table(records, whole[target])

    results = {scale: measured(scale, few) for scale in guidance_scales}
    best = max(guidance_scales, key=lambda scale: results[scale][1]["overall"])
    if few < images_per_prompt:
        results[best] = measured(best, images_per_prompt)
    bar.close()
    return {
        "suite": target,
        "num_inference_steps": num_inference_steps,
        "images_per_prompt": images_per_prompt,
        "images_per_scale": few,
        "seed": seed,
        "best_guidance": best,
        "guidance": {str(float(scale)): results[scale][1] for scale in guidance_scales},
        "prompts": _per_prompt(records, results[best][0], target),
        "seeds": seeds,
    }


def evaluation_plan(schedule: Schedule, guidance: float) -> StepPlan:
    """The deterministic sampler of every evaluation."""
    return make_plan(ode(schedule), record=[], guidance=guidance)


def choosing_images(guidance_scales: Sequence[float], images_per_prompt: int, images_per_scale: int | None) -> int:
    """How many images of a prompt choose the scale: all where nothing else is said, or nothing is to choose."""
    return images_per_prompt if images_per_scale is None or len(guidance_scales) == 1 else images_per_scale


def evaluation_seeds(seed: int, images: int) -> list[int]:
    """Seeds of an evaluation's images; image j of record i is number i * images_per_prompt + j."""
    return [noise_key(seed, index) & 0x7FFFFFFF for index in range(images)]


def decoded(trajectory: Trajectory) -> Tensor:
    """The images of a rollout that decoded them."""
    if trajectory.images is None:
        raise ValueError("this rollout was made with decode = False")
    return trajectory.images


def _joined(parts: Mapping[str, Tensor], records: int) -> dict[str, Tensor]:
    """(records, images) scores from the shares of all processes; process r of W has records r, r + W, ..."""
    shares = gather_object([{name: values.tolist() for name, values in parts.items()}])
    world = len(shares)
    return {name: torch.tensor([shares[i % world][name][i // world] for i in range(records)]) for name in parts}


def _table(records: Sequence[Record], scores: Tensor) -> dict[str, Any]:
    """Overall and tasks over the images that could be scored."""
    lines = [dict(record["metadata"]) | {"tag": _task(record)} for record in records]
    scored = [(line, v) for line, own in zip(lines, scores.tolist(), strict=True) for v in own if v == v]
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


def _per_prompt(records: Sequence[Record], scores: Mapping[str, Tensor], target: str) -> list[dict[str, Any]]:
    """Means over the images of each prompt that could be scored, None (null in JSON) where none could."""
    table = {name: values.nanmean(1).tolist() for name, values in scores.items()}
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
