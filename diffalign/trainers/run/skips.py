"""The cause of a step that changed nothing."""

from __future__ import annotations

from collections.abc import Sequence

from diffalign.trainers.run.optimisation import StepResult


def skip_cause(result: StepResult, names: Sequence[str], nothing: str) -> str:
    """Why a step was skipped.

    Args:
        result: of the optimiser.
        names: the trained tensors, in the optimiser's order.
        nothing: the cause where the optimiser was not even called: nothing to learn from.
    """
    causes = []
    if result.broken:
        first = names[result.broken[0]]
        causes.append(f"the gradient of {first} ({len(result.broken)} tensors) is not finite")
    if result.bad_losses:
        causes.append(f"{result.bad_losses} terms of the loss are not finite")
    return " and ".join(causes) or nothing
