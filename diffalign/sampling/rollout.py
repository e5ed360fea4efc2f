"""The one sampling loop, and the evaluation of a recorded step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffalign.sampling.dynamics import StepOut
from diffalign.sampling.noise import initial_noise, step_noise
from diffalign.sampling.plan import StepPlan
from diffalign.sampling.policy import Policy, guided, take
from diffalign.sampling.prediction import PREDICTIONS
from diffalign.sampling.trajectory import Trajectory

Noise = Callable[[Sequence[int], Sequence[int], Sequence[int], int, int], Tensor]
"""(latent shape, seeds, branches, step, run seed) -> (B, C, H, W) standard normal."""


def rollout(
    policy: Policy,
    plan: StepPlan,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    run_seed: int = 0,
    branches: Sequence[int] | None = None,
    negative_prompt: str = "",
    init: Tensor | None = None,
    noise: Noise = step_noise,
    keep_means: bool = False,
    decode: bool = True,
) -> Trajectory:
    """Sample one batch.

    Args:
        policy: the model.
        plan: what to do at each step.
        prompts: one per sample; repeated prompts are encoded once.
        seeds: one per sample; x_T of seed s is what diffusers draws from a CPU generator seeded with s.
        run_seed: further key of the step noise.
        branches: further key per sample, so that samples with one x_T differ; default 0.
        negative_prompt: text of the unconditional branch ("" is the trained null prompt of most models).
        init: (B, C, H, W) latent at plan.start instead of the seeds' x_T (a leaf for noise optimisation, a stored state
            to resume from).
        noise: where step noise comes from.
        keep_means: keep the mean of each recorded step.
        decode: decode the final latents to images.

    Raises:
        ValueError: prompts and seeds of different lengths, a latent of another shape, plan.start > 0 without init.
    """
    trajectory = _begin(policy, plan, prompts, seeds, branches, negative_prompt, init)
    previous: Tensor | None = None
    for k in plan.steps:
        with torch.set_grad_enabled(plan.grad[k]):
            output = predict_at(policy, trajectory, k, trajectory.x)  # copies share it
            output = _copies(output, plan.fork[k])
            previous = None if previous is None else _copies(previous, plan.fork[k])
            trajectory = trajectory.forked(plan.fork[k])
            out = _advance(policy, trajectory, k, output, noise, run_seed, previous)
        trajectory = _note(trajectory, k, out, keep_means)
        previous = out.x0_hat
    if decode:
        with torch.set_grad_enabled(any(plan.grad)):
            trajectory = replace(trajectory, images=policy.decode(trajectory.x))
    return trajectory


def replay(policy: Policy, trajectory: Trajectory, k: int | Tensor) -> StepOut:
    """Evaluate a recorded step with the policy's present weights, under the caller's grad mode.

    Samples that part at step k or later are one sample before it: they share the prediction here as in the roll-out.

    Args:
        policy: the model.
        trajectory: a roll-out; states before and after step k must have been recorded.
        k: step index, or (B,) long tensor with one recorded index per sample.

    Returns:
        StepOut whose log_prob belongs to the recorded outcome.
    """
    if not isinstance(k, int):
        x, next_x = _gather(trajectory, k), _gather(trajectory, k + 1)
        return trajectory.plan.dynamics.step(predict_at(policy, trajectory, k, x), k, x, next_x)
    x, next_x = _state(trajectory, k), _state(trajectory, k + 1)
    rows, family = (index.to(x.device) for index in trajectory.ancestors(k))
    roots = replace(trajectory, prompt_id=trajectory.prompt_id[rows.to(trajectory.prompt_id.device)])
    output = predict_at(policy, roots, k, x[rows])[family]
    return trajectory.plan.dynamics.step(output, k, x, next_x)


def _begin(
    policy: Policy,
    plan: StepPlan,
    prompts: Sequence[str],
    seeds: Sequence[int],
    branches: Sequence[int] | None,
    negative_prompt: str,
    init: Tensor | None,
) -> Trajectory:
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(f"got {len(prompts)} prompts and {len(seeds)} seeds; one seed per prompt, at least one")
    if plan.start > 0 and init is None:
        raise ValueError(f"the plan starts at step {plan.start}: give the latents of that step as init")
    shape = (len(prompts), *policy.latent_shape)
    if init is not None and tuple(init.shape) != shape:
        raise ValueError(f"init has shape {tuple(init.shape)}, the policy samples {shape}")
    x = initial_noise(policy.latent_shape, seeds, policy.dtype) if init is None else init
    distinct = tuple(dict.fromkeys(prompts))
    with torch.no_grad():
        cond = policy.encode(distinct)
        uncond = policy.encode([negative_prompt]) if plan.guided else None
    return Trajectory(
        plan,
        prompts=distinct,
        cond=cond,
        uncond=uncond,
        prompt_id=torch.tensor([distinct.index(p) for p in prompts]),
        seeds=torch.tensor(list(seeds), dtype=torch.long),
        branch=torch.tensor(list(branches) if branches is not None else [0] * len(prompts)),
        parent=torch.full((len(prompts),), -1),
        origin=torch.arange(len(prompts)),
        init_noise=x.detach().to(policy.device),
        x=x.to(policy.device),
    )


def predict_at(policy: Policy, trajectory: Trajectory, k: int | Tensor, x: Tensor) -> Tensor:
    """Model output at step k, guided as the plan guides that step, under the caller's grad mode.

    Args:
        policy: the model.
        trajectory: whose prompts and plan belong to the rows of x.
        k: step index, or (B,) long tensor with one per sample; hooks act on the former alone.
        x: (B, C, H, W) latents before the step.
    """
    plan = trajectory.plan
    k = k if isinstance(k, int) else k.cpu()  # where the tables are
    t = plan.dynamics.schedule.timestep[k].to(x.device).expand(trajectory.batch)
    cond = take(trajectory.cond, trajectory.prompt_id)
    scale = _scale(plan, k, x)
    uncond = None
    if trajectory.uncond is not None and scale is not None:
        uncond = take(trajectory.uncond, torch.zeros_like(trajectory.prompt_id))
    call = partial(guided, policy, uncond_grad=plan.uncond_grad)
    one = 1.0 if scale is None else scale
    if plan.checkpoint and torch.is_grad_enabled():
        output: Tensor = checkpoint(call, x, t, cond, uncond, one, use_reentrant=False)
    else:
        output = call(x, t, cond, uncond, one)
    hook = plan.hook[k] if isinstance(k, int) else None
    if hook is not None and isinstance(k, int):
        output = hook(k, x, clean_prediction(plan, k, x, output), output)
    return output


def clean_prediction(plan: StepPlan, k: int, x: Tensor, output: Tensor) -> Tensor:
    """(B, C, H, W) x0_hat that a model output at step k stands for."""
    schedule = plan.dynamics.schedule
    alpha, sigma = schedule.alpha[k].to(x), schedule.sigma[k].to(x)
    return PREDICTIONS[schedule.prediction](output, x, alpha, sigma)[0]


def _scale(plan: StepPlan, k: int | Tensor, x: Tensor) -> float | Tensor | None:
    """Guidance at step k, None where every row has scale 1."""
    if isinstance(k, int):
        return None if plan.guidance[k] == 1 else plan.guidance[k]
    scales = torch.tensor(plan.guidance)[k]
    if bool((scales == 1).all()):
        return None
    return scales.to(x).reshape(-1, *(1,) * (x.dim() - 1))


def _copies(x: Tensor, copies: int) -> Tensor:
    return x if copies == 1 else x.repeat_interleave(copies, dim=0)


def _advance(
    policy: Policy,
    trajectory: Trajectory,
    k: int,
    output: Tensor,
    noise: Noise,
    run_seed: int,
    previous: Tensor | None,
) -> StepOut:
    plan, x = trajectory.plan, trajectory.x
    fresh = None
    if bool(plan.dynamics.c[k] > 0):
        keys = trajectory.seeds.tolist(), trajectory.branch.tolist()
        fresh = noise(policy.latent_shape, *keys, k, run_seed).to(x.device)
    return plan.dynamics.step(output, k, x, noise=fresh, x0_prev=previous, reparam=plan.grad[k])


def _note(trajectory: Trajectory, k: int, out: StepOut, keep_means: bool) -> Trajectory:
    """The trajectory after step k; recorded tensors carry no graph."""
    states, log_probs, means = dict(trajectory.states), dict(trajectory.log_probs), dict(trajectory.means)
    if trajectory.plan.record[k]:
        states[k], states[k + 1] = trajectory.x.detach(), out.next_x.detach()
        log_probs[k] = None if out.log_prob is None else out.log_prob.detach()
        if keep_means:
            means[k] = out.mean.detach()
    return replace(trajectory, x=out.next_x, x0_hat=out.x0_hat, states=states, log_probs=log_probs, means=means)


def _state(trajectory: Trajectory, k: int) -> Tensor:
    if k not in trajectory.states:
        raise ValueError(f"step {k} was not recorded; recorded states: {sorted(trajectory.states)}")
    return trajectory.states[k]


def _gather(trajectory: Trajectory, k: Tensor) -> Tensor:
    return torch.stack([_state(trajectory, int(step))[row] for row, step in enumerate(k.tolist())])
