"""The preflight of a run as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffalign.commands._tables import table
from diffalign.config import RunConfig

if TYPE_CHECKING:
    from diffalign.trainers import Check


def check_run(config: RunConfig) -> int:
    """Runs the full preflight of a run and prints it.

    Returns:
        0 when every check passes, 1 otherwise.
    """
    from diffalign.trainers import Trainer, preflight

    rewards = f" with {', '.join(config.trained_rewards)}" if config.trained_rewards else ""
    print(f"checking {config.method} on {config.pretrained_model_name_or_path}{rewards} ...", flush=True)
    checks = preflight(Trainer(args=config), full=True)
    print(checks_table(checks))
    failed = sum(not check.passed for check in checks)
    print(f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed")
    return 1 if failed else 0


def checks_table(checks: Sequence[Check]) -> str:
    """One line per check with its figure; the advice under each that failed."""
    rows = [["ok" if check.passed else "FAILED", check.name, check.figure] for check in checks]
    lines = table(["", "check", "figure"], rows).splitlines()
    advice = [f"  {check.name}: {check.advice}" for check in checks if not check.passed]
    return "\n".join([*lines, *(["", "what to do:", *advice] if advice else [])])
