"""One step of a sampler in one pass: guidance, the step, its Gaussian log-density, and the KL to a reference."""

from __future__ import annotations

from diffalign.cuda_ext.sampler_step.coefficients import affine
from diffalign.cuda_ext.sampler_step.operator import StepOut, reason, sampler_step

__all__ = ["StepOut", "affine", "reason", "sampler_step"]
