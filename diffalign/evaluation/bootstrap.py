"""Paired, stratified bootstrap over prompts: is the model after alignment better than before, and by how much.

The quantity is GenEval's overall score: the unweighted mean over tasks of the mean score of a task. Both models draw
the same prompts from the same starting noises, so the resampling unit is a *pair*: one prompt with its score before and
after. Resampling happens inside each task (a task keeps its number of units), because tasks are fixed by the benchmark,
not drawn. Intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). They
answer for the choice of prompts alone: not for the training seed, nor for the choice of the guidance scale. Measured
coverage of a nominal 95 % with six tasks and four images per prompt: 94.5 % at 40 prompts per task, 93.5 % at 20 (2,000
simulated comparisons each, binomial error 0.5 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Interval", "paired_bootstrap"]


class Interval(NamedTuple):
    """A gain with its interval.

    Attributes:
        gain: `after - before`, the point estimate from all prompts.
        low: Lower end of the interval of the gain.
        high: Upper end of the interval of the gain.
        before: Score before.
        after: Score after.
        per_task: The same for each task, by name; empty for the entry of one task.
    """

    gain: float
    low: float
    high: float
    before: float
    after: float
    per_task: dict[str, Interval]


def paired_bootstrap(
    before: Tensor | Sequence[float],
    after: Tensor | Sequence[float],
    tasks: Sequence[str],
    clusters: Sequence[str] | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of the gain in overall score by a paired bootstrap over prompts, stratified by task.

    Args:
        before: `(N,)` mean score of each prompt over its images, before alignment.
        after: `(N,)` the same prompts in the same order, after.
        tasks: `N` task names, the strata.
        clusters: `N` labels; lines of one task that share a label are resampled together (two lines with one prompt
            text are not two independent observations). None: every line stands for itself.
        draws: Number of bootstrap samples.
        seed: Seed of the resampling; the global generator is not touched.
        level: Coverage asked for, in (0, 1).

    Returns:
        The interval of the overall gain, with one of each task inside. A task with a single cluster has no spread to
        resample: its own interval has width zero and says nothing.

    Raises:
        ValueError: If lengths differ, nothing is given, a score is not finite, `draws < 1` or `level` is not in (0, 1).
    """
    scores = _paired(before, after)
    clusters = list(map(str, range(len(scores)))) if clusters is None else clusters
    _check(len(scores), tasks, clusters, draws, level)
    generator = torch.Generator().manual_seed(seed)
    means, samples = {}, {}
    for task in dict.fromkeys(tasks):
        rows = [i for i, name in enumerate(tasks) if name == task]
        totals = _cluster_totals(scores[rows], [clusters[i] for i in rows])
        means[task] = totals[:, :2].sum(0) / totals[:, 2].sum()
        samples[task] = _resample(totals, draws, generator)
    per_task = {task: _interval(means[task], samples[task], level, {}) for task in means}
    overall = torch.stack(list(means.values())).mean(0)
    return _interval(overall, torch.stack(list(samples.values())).mean(0), level, per_task)


def _paired(before: Tensor | Sequence[float], after: Tensor | Sequence[float]) -> Tensor:
    """`(N, 2)` float64 scores from the two columns."""
    columns = [torch.as_tensor(column, dtype=torch.float64).cpu() for column in (before, after)]
    if columns[0].ndim != 1 or columns[0].shape != columns[1].shape:
        raise ValueError(
            f"before and after must be two lists of the same prompts, got shapes {tuple(columns[0].shape)} and "
            f"{tuple(columns[1].shape)}: evaluate both models on one prompt file"
        )
    return torch.stack(columns, dim=1)


def _check(n: int, tasks: Sequence[str], clusters: Sequence[str], draws: int, level: float) -> None:
    """Refuse what cannot be resampled (scores are checked where they are summed)."""
    if n == 0:
        raise ValueError("there is nothing to resample: before and after are empty, give at least one prompt")
    if len(tasks) != n or len(clusters) != n:
        raise ValueError(f"{n} prompts need {n} tasks and {n} cluster labels, got {len(tasks)} and {len(clusters)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}: 2000 is usual")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}: 0.95 is usual")


def _cluster_totals(scores: Tensor, labels: Sequence[str]) -> Tensor:
    """`(C, 3)` sums of before, of after and number of lines for each of the C clusters among `(n, 2)` scores."""
    if not torch.isfinite(scores).all():
        raise ValueError("a score is not finite: drop prompts that could not be scored from both models first")
    index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    rows = torch.tensor([index[label] for label in labels])
    lines = torch.cat([scores, torch.ones(len(scores), 1, dtype=torch.float64)], dim=1)
    return torch.zeros(len(index), 3, dtype=torch.float64).index_add_(0, rows, lines)


def _resample(totals: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """`(draws, 2)` means of before and after over clusters drawn with replacement from `(C, 3)` totals."""
    size = len(totals)
    picks = torch.randint(size, (draws, size), generator=generator)
    ones = torch.ones(draws, size, dtype=torch.float64)
    counts = torch.zeros_like(ones).scatter_add_(1, picks, ones)
    sums = counts @ totals
    return sums[:, :2] / sums[:, 2:]


def _interval(mean: Tensor, samples: Tensor, level: float, per_task: dict[str, Interval]) -> Interval:
    """Percentile interval of the gain from a `(2,)` point estimate and `(draws, 2)` bootstrap means."""
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(samples[:, 1] - samples[:, 0], tails).tolist()
    before, after = mean.tolist()
    return Interval(after - before, low, high, before, after, per_task)
