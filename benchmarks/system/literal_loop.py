"""Flow-GRPO as research code writes it: batch 1, the prompt encoded for every image, both guidance halves with graph.

The same mathematics as the trainer's, kept literal on purpose: it is the baseline of `race.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffalign.sampling import initial_noise, step_noise


@dataclass
class Sample:
    """One image's trajectory: states (T+1), log-probs of the stochastic steps, and its encoded prompt."""

    states: list[Tensor]
    log_probs: list[Tensor]
    embeds: tuple[Tensor, Tensor]
    image: Tensor


def sde_step(v: Tensor, x: Tensor, sigma: float, sigma_next: float, a: float, noise: Tensor | None, target: Any = None):
    """(next x, mean log-prob) of Flow-GRPO's SDE in its published drift form; noise None = ODE."""
    dt = sigma_next - sigma
    if noise is None and target is None:
        return x + v * dt, None
    denominator = 1 - (sigma_next if sigma == 1 else sigma)
    s = a * math.sqrt(sigma / denominator)
    eps = x + (1 - sigma) * v
    mean = x + (v + s * s / (2 * sigma) * eps) * dt
    std = s * math.sqrt(-dt)
    following = mean + std * noise if target is None else target
    log_prob = -((following.detach() - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return following.detach(), log_prob.mean()


def encode(pipeline: Any, prompt: str, length: int) -> tuple[Tensor, Tensor]:
    """Prompt embeddings and pooled embeddings of one prompt."""
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompt, None, None, do_classifier_free_guidance=False, max_sequence_length=length, device="cpu"
    )
    return embeds, pooled


def velocity(pipeline: Any, x: Tensor, t: float, embeds: tuple[Tensor, Tensor]) -> Tensor:
    """One forward of the transformer at batch 1."""
    time = torch.full((1,), t)
    return pipeline.transformer(x, embeds[0], embeds[1], time, return_dict=False)[0]


@torch.no_grad()
def roll_out(policy: Any, prompt: str, seed: int, branch: int, run_seed: int, steps: int, a: float) -> Sample:
    """One image."""
    pipeline, schedule = policy.pipeline, policy.schedule(steps)
    embeds = encode(pipeline, prompt, policy.max_sequence_length)
    x = initial_noise(policy.latent_shape, [seed])
    states, log_probs = [x], []
    for k in range(steps):
        sigma, following = float(schedule.sigma[k]), float(schedule.sigma[k + 1])
        noise = step_noise(policy.latent_shape, [seed], [branch], k, run_seed) if k < steps - 1 else None
        v = velocity(pipeline, x, float(schedule.timestep[k]), embeds)
        x, log_prob = sde_step(v, x, sigma, following, a, noise)
        states.append(x)
        if log_prob is not None:
            log_probs.append(log_prob)
    return Sample(states, log_probs, embeds, policy.decode(x))


def train(policy: Any, sample: Sample, advantage: float, steps: int, a: float, clip: float, share: float) -> None:
    """Back-propagate every stochastic step of one image."""
    pipeline, schedule = policy.pipeline, policy.schedule(steps)
    for k, old in enumerate(sample.log_probs):
        v = velocity(pipeline, sample.states[k], float(schedule.timestep[k]), sample.embeds)
        sigma, following = float(schedule.sigma[k]), float(schedule.sigma[k + 1])
        _, log_prob = sde_step(v, sample.states[k], sigma, following, a, None, sample.states[k + 1])
        ratio = (log_prob - old).exp()
        loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
        (loss * share).backward()
