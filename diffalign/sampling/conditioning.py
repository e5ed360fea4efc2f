"""Encoded prompts of a batch, and the guided prediction under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffalign.sampling.plan import StepPlan
from diffalign.sampling.policy import Cond, Policy, take
from diffalign.sampling.prediction import PREDICTIONS


@dataclass(frozen=True)
class Conditioning:
    """The prompts of a batch, encoded once each.

    Attributes:
        prompts: P distinct prompts.
        cond: their encodings, P rows.
        uncond: encoding of the negative prompt, 1 row, or None without guidance.
        prompt_id: (B,) long, the prompt of each sample.
    """

    prompts: tuple[str, ...]
    cond: Cond
    uncond: Cond | None
    prompt_id: Tensor

    def select(self, rows: Tensor) -> Conditioning:
        """That of the samples `rows` (n,) long; a row may come twice."""
        return replace(self, prompt_id=self.prompt_id[rows.to(self.prompt_id.device)])

    def rows(self) -> tuple[Cond, Cond | None]:
        """Both branches with one row per sample."""
        null = None if self.uncond is None else take(self.uncond, torch.zeros_like(self.prompt_id))
        return take(self.cond, self.prompt_id), null


def encode_prompts(policy: Policy, prompts: Sequence[str], *, negative_prompt: str | None = "") -> Conditioning:
    """Encode the prompts of a batch, without gradient.

    Args:
        policy: the model.
        prompts: one per sample; repeated prompts are encoded once.
        negative_prompt: text of the unconditional branch; None when no step is guided.

    Raises:
        ValueError: no prompts.
    """
    if not prompts:
        raise ValueError("no prompts: give one per sample")
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    with torch.no_grad():
        cond = policy.encode(list(distinct))
        uncond = None if negative_prompt is None else policy.encode([negative_prompt], negative=True)
    return Conditioning(tuple(distinct), cond, uncond, torch.tensor([distinct[prompt] for prompt in prompts]))


def predict_at(policy: Policy, plan: StepPlan, conditioning: Conditioning, k: int | Tensor, x: Tensor) -> Tensor:
    """Model output at step k, guided as the plan guides that step, under the caller's grad mode.

    Args:
        policy: the model.
        plan: schedule, guidance, hooks and memory options.
        conditioning: prompts of the rows of x.
        k: step index, or (B,) long tensor with one per sample; hooks act on the former alone.
        x: (B, *latent_shape) latents before the step.

    Raises:
        ValueError: a guided step, but no negative prompt was encoded.
    """
    k = k if isinstance(k, int) else k.cpu()  # where the tables are
    t = plan.dynamics.schedule.timestep[k].to(x.device).expand(x.shape[0])
    cond, uncond = conditioning.rows()
    scale = _scale(policy, plan, k, x)
    if scale is not None and uncond is None:
        raise ValueError("the plan guides this step, but no negative prompt was encoded: encode one, or use guidance 1")
    call = partial(policy.guided, uncond_grad=plan.uncond_grad)
    arguments = (x, t, cond, None, 1.0) if scale is None else (x, t, cond, uncond, scale)
    if plan.checkpoint and torch.is_grad_enabled():
        output: Tensor = checkpoint(call, *arguments, use_reentrant=False)
    else:
        output = call(*arguments)
    hook = plan.hook[k] if isinstance(k, int) else None
    if hook is not None and isinstance(k, int):
        output = hook(k, x, clean_prediction(plan, k, x, output), output)
    return output


def clean_prediction(plan: StepPlan, k: int, x: Tensor, output: Tensor) -> Tensor:
    """(B, *latent_shape) x0_hat of a model output at step k."""
    schedule = plan.dynamics.schedule
    alpha, sigma = schedule.alpha[k].to(x), schedule.sigma[k].to(x)
    return PREDICTIONS[schedule.prediction](output, x, alpha, sigma)[0]


def _scale(policy: Policy, plan: StepPlan, k: int | Tensor, x: Tensor) -> float | Tensor | None:
    """Guidance at step k, None where no row needs the unconditional branch."""
    if isinstance(k, int):
        return plan.guidance[k] if policy.needs_negative(plan.guidance[k]) else None
    scales = [plan.guidance[step] for step in k.tolist()]
    if not any(policy.needs_negative(scale) for scale in scales):
        return None
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.tensor(scales, dtype=wide, device=x.device).reshape(-1, *(1,) * (x.dim() - 1))
