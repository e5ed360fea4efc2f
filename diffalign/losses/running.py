"""DDPO's advantage: rewards normalised per prompt over recent batches, for groups of one sample."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.losses.common import as_float

History = dict[str, list[float]]
"""Recent rewards of each prompt, oldest first; serialises to JSON in a checkpoint. Starts as ``{}``."""


def _mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population std; the mean of equal values is exact, so that their advantages are exactly 0."""
    mean = values[0] + statistics.fmean(v - values[0] for v in values)
    return mean, statistics.fmean((v - mean) ** 2 for v in values) ** 0.5


def running_advantage(
    history: History,
    prompts: Sequence[str],
    rewards: Tensor,
    *,
    buffer_size: int = 32,
    min_count: int = 16,
    eps: float = 1e-6,
) -> tuple[History, Tensor]:
    """Normalise rewards by the last ``buffer_size`` rewards of their prompt (DDPO, the form of the code,
    stat_tracking.py).

    This batch's rewards enter the history first. A prompt with fewer than ``min_count`` entries is normalised by the
    mean and std of this batch. Population std. NaN rewards are left out and get 0.

    Args:
        history: the history returned by the previous call, ``{}`` at the start; not modified.
        prompts: N prompts.
        rewards: ``(N,)`` of all processes, so that every process has the same history.
        buffer_size: entries kept per prompt (32 in DDPO's large runs, 16 in its default).
        min_count: entries needed for statistics per prompt.
        eps: added to the standard deviation.

    Returns:
        The new history, and advantages ``(N,)``, fp32 (fp64 kept), without gradient. Clip them with ``clamp(-5, 5)``.

    Raises:
        ValueError: lengths differ, or ``min_count`` could never be reached.
    """
    if rewards.ndim != 1 or len(prompts) != len(rewards):
        raise ValueError(
            f"rewards must have shape (N,) with N prompts, got {tuple(rewards.shape)} and {len(prompts)} prompts"
        )
    if not 1 <= min_count <= buffer_size:
        raise ValueError(f"min_count must lie in 1..buffer_size, got {min_count} with buffer_size {buffer_size}")
    values = rewards.double().tolist()
    scored = [i for i, finite in enumerate(torch.isfinite(rewards).tolist()) if finite]
    batch = [values[i] for i in scored]
    new = dict(history)
    for i in scored:
        new[prompts[i]] = [*new.get(prompts[i], []), values[i]][-buffer_size:]
    seen = {prompts[i] for i in scored}
    moments = dict.fromkeys(seen, _mean_std(batch)) if batch else {}
    moments |= {prompt: _mean_std(new[prompt]) for prompt in seen if len(new[prompt]) >= min_count}
    adv = torch.zeros(len(values), dtype=torch.float64)
    for i in scored:
        mean, std = moments[prompts[i]]
        adv[i] = (values[i] - mean) / (std + eps)
    return new, adv.to(rewards.device, as_float(rewards).dtype)
