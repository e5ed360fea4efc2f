"""Signs that a model was distilled to few steps."""

from __future__ import annotations

import re

from diffalign.models import Adapter

WORDS = re.compile(r"turbo|schnell|lightning|hyper-?sd|\blcm\b|\bdmd2?\b|distill", re.IGNORECASE)
SCHEDULERS = frozenset({"LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler", "SCMScheduler"})


def sign_of_distillation(policy: Adapter) -> str | None:
    """What in a pipeline's name or scheduler says that it is distilled, or None.

    Nothing in the weights says so; a model under another name passes.
    """
    pipeline = policy.pipeline
    scheduler = type(pipeline.scheduler).__name__
    if scheduler in SCHEDULERS:
        return scheduler
    if getattr(pipeline.config, "is_distilled", False):
        return "is_distilled"
    if policy.denoiser.config.get("time_cond_proj_dim"):
        return "time_cond_proj_dim"
    found = WORDS.search(str(getattr(pipeline.config, "_name_or_path", "") or ""))
    return found[0] if found else None
