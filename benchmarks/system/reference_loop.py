"""Flow-GRPO as research code writes it, the baseline of `race.py`.

Every step is stochastic but the last, the prompt is encoded for every image, and both halves of the guidance go through
one forward and one graph. Written out on purpose, without the library's sampler. The caller chooses the batch: one
image, or many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffalign.sampling import initial_noise, step_noise

Text = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings of both phases.

    Attributes:
        steps: Denoising steps.
        noise_level: Of the stochastic steps.
        guidance: Classifier-free guidance scale; at 1 the unconditional half is not computed.
        clip: Clip range of the ratio.
        run_seed: Seed of the run, a key of the step noise.
    """

    steps: int
    noise_level: float
    guidance: float
    clip: float
    run_seed: int


@dataclass(frozen=True)
class Samples:
    """Trajectories of a batch: T + 1 states, log-probs (B,) of the stochastic steps, encoded prompts, images."""

    states: list[Tensor]
    log_probs: list[Tensor]
    text: Text
    images: Tensor


def sde_step(v: Tensor, x: Tensor, sigma: float, sigma_next: float, a: float, noise: Tensor | None, target: Any = None):
    """(next x, mean log-prob (B,)) of Flow-GRPO's SDE in its published drift form; no noise and no target: ODE."""
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
    return following.detach(), log_prob.flatten(1).mean(1)


def encode(policy: Any, prompts: list[str], guided: bool) -> Text:
    """Prompt embeddings and pooled embeddings; under guidance those of empty prompts come first."""
    texts = [""] * len(prompts) + prompts if guided else prompts
    embeds, _, pooled, _ = policy.pipeline.encode_prompt(
        texts, None, None, do_classifier_free_guidance=False, max_sequence_length=policy.max_sequence_length
    )
    return embeds, pooled


def velocity(policy: Any, x: Tensor, t: float, text: Text, guidance: float) -> Tensor:
    """Guided velocity by one forward of the transformer."""
    halves = torch.cat([x, x]) if guidance != 1 else x
    time = torch.full((len(halves),), t)
    v = policy.pipeline.transformer(halves, text[0], text[1], time, return_dict=False)[0]
    if guidance == 1:
        return v
    uncond, cond = v.chunk(2)
    return uncond + guidance * (cond - uncond)


@torch.no_grad()
def roll_out(policy: Any, prompts: list[str], seeds: list[int], branches: list[int], set_: Settings) -> Samples:
    """Sample and decode one batch."""
    schedule, text = policy.schedule(set_.steps), encode(policy, prompts, set_.guidance != 1)
    x = initial_noise(policy.latent_shape, seeds)
    states, log_probs = [x], []
    for k in range(set_.steps):
        sigma, following = float(schedule.sigma[k]), float(schedule.sigma[k + 1])
        last = k == set_.steps - 1
        noise = None if last else step_noise(policy.latent_shape, seeds, branches, k, set_.run_seed)
        v = velocity(policy, x, float(schedule.timestep[k]), text, set_.guidance)
        x, log_prob = sde_step(v, x, sigma, following, set_.noise_level, noise)
        states.append(x)
        if log_prob is not None:
            log_probs.append(log_prob)
    return Samples(states, log_probs, text, policy.decode(x))


def train(policy: Any, samples: Samples, advantages: Tensor, total: int, set_: Settings) -> None:
    """Back-propagate every stochastic step of one batch; `total` is the number of images of the whole update."""
    schedule = policy.schedule(set_.steps)
    for k, old in enumerate(samples.log_probs):
        x, following = samples.states[k], samples.states[k + 1]
        v = velocity(policy, x, float(schedule.timestep[k]), samples.text, set_.guidance)
        levels = float(schedule.sigma[k]), float(schedule.sigma[k + 1])
        _, log_prob = sde_step(v, x, *levels, set_.noise_level, None, following)
        ratio = (log_prob - old).exp()
        loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - set_.clip, 1 + set_.clip))
        (loss.sum() / (total * len(samples.log_probs))).backward()
