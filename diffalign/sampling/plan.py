"""What a rollout does at each step: dynamics row, record, gradient, fork, guidance, hook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffalign.sampling.step import Dynamics

Hook = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(k, x, x0_hat, model_output) -> model_output, called on the guided prediction before the step is taken."""


@dataclass(frozen=True)
class StepPlan:
    """Arrays of length T; build one with `make_plan`.

    Attributes:
        dynamics: the table of steps.
        record: keep the states around this step and its log-prob.
        grad: run this step with a graph, and keep it through the sampler.
        fork: copies made of every latent at this step (1 = none); they share its prediction and differ by its noise.
        guidance: scale at this step; 1 or less = the conditional branch alone.
        hook: changes the prediction at this step.
        start: first step executed (the initial latent belongs to it).
        stop: the first step not executed.
        uncond_grad: keep the graph of the unconditional branch.
        checkpoint: recompute the network in backward instead of storing its activations.
    """

    dynamics: Dynamics
    record: tuple[bool, ...]
    grad: tuple[bool, ...]
    fork: tuple[int, ...]
    guidance: tuple[float, ...]
    hook: tuple[Hook | None, ...]
    start: int
    stop: int
    uncond_grad: bool = True
    checkpoint: bool = False

    @property
    def steps(self) -> range:
        """The step indices executed."""
        return range(self.start, self.stop)

    @property
    def recorded(self) -> tuple[int, ...]:
        """The executed step indices whose states are kept."""
        return tuple(k for k in self.steps if self.record[k])

    @property
    def branches(self) -> int:
        """Number of copies of each initial latent at the end."""
        return self.copies(self.start)

    def copies(self, k: int) -> int:
        """Number of copies forked from step k on of each latent that step k predicts for."""
        return math.prod(self.fork[max(k, self.start) : self.stop])


def make_plan(
    dynamics: Dynamics,
    *,
    record: Iterable[int] | None = None,
    grad: Iterable[int] = (),
    fork: dict[int, int] | None = None,
    guidance: float | Sequence[float] = 1.0,
    hook: dict[int, Hook] | Hook | None = None,
    start: int = 0,
    stop: int | None = None,
    uncond_grad: bool = True,
    checkpoint: bool = False,
) -> StepPlan:
    """A plan from step indices.

    Args:
        dynamics: the table of steps.
        record: steps to record; default the stochastic ones that are executed.
        grad: steps run with a graph (DRaFT-K: the last K).
        fork: {step: copies} (branching methods).
        guidance: one scale, or one per step; 1 or less is the conditional branch alone, as in diffusers.
        hook: one hook for every step, or {step: hook}.
        start: first step executed.
        stop: the first step not executed; default T.
        uncond_grad: keep the graph of the unconditional branch. False halves activations and backward passes of guided
            steps, and biases their gradient (`Policy.guided`).
        checkpoint: recompute the network in backward.

    Raises:
        ValueError: a step outside the schedule, a fork where no noise follows, guidance of another length.
    """
    total = dynamics.num_steps
    stop = total if stop is None else stop
    if not 0 <= start < stop <= total:
        raise ValueError(f"start = {start}, stop = {stop} do not fit a schedule of {total} steps")
    steps = range(start, stop)
    forks = fork or {}
    recorded = [k for k in steps if dynamics.stochastic[k]] if record is None else list(record)
    graphs = list(grad)
    for name, chosen in (("record", recorded), ("grad", graphs), ("fork", list(forks))):
        _check_steps(name, chosen, steps)
    _check_forks(forks, dynamics, stop)
    hooks = hook if isinstance(hook, dict) else dict.fromkeys(steps, hook)
    _check_steps("hook", list(hooks), steps)
    return StepPlan(
        dynamics,
        record=tuple(k in recorded for k in range(total)),
        grad=tuple(k in graphs for k in range(total)),
        fork=tuple(forks.get(k, 1) for k in range(total)),
        guidance=_per_step(guidance, total),
        hook=tuple(hooks.get(k) for k in range(total)),
        start=start,
        stop=stop,
        uncond_grad=uncond_grad,
        checkpoint=checkpoint,
    )


def _check_steps(name: str, chosen: Sequence[int], steps: range) -> None:
    outside = [k for k in chosen if k not in steps]
    if outside:
        raise ValueError(f"{name} names the steps {outside}, the plan executes {steps.start}..{steps.stop - 1}")


def _check_forks(forks: dict[int, int], dynamics: Dynamics, stop: int) -> None:
    for k, copies in forks.items():
        if copies < 1:
            raise ValueError(f"fork at step {k} asks for {copies} copies; at least 1 is needed")
        if copies > 1 and not bool(dynamics.stochastic[k:stop].any()):
            raise ValueError(
                f"fork at step {k} makes {copies} copies, but {dynamics.name} adds no noise from there on: "
                "they would all be the same image. Make a step from the fork on stochastic"
            )


def _per_step(guidance: float | Sequence[float], total: int) -> tuple[float, ...]:
    if isinstance(guidance, (int, float)):
        return (float(guidance),) * total
    if len(guidance) != total:
        raise ValueError(f"guidance has {len(guidance)} entries, the schedule {total} steps")
    return tuple(float(g) for g in guidance)
