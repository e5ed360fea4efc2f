"""Is the policy the model that people run? A plain call of the pipeline against the rollout, from one seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import make_plan, plain, rollout

LIMIT = 1e-2
"""Mean image difference above which a model in half precision is adapted wrongly; in fp32 1e-4 is ample."""


class Gap(NamedTuple):
    """Differences of images in [0, 1].

    Attributes:
        largest: over all values.
        mean: over all values.
    """

    largest: float
    mean: float


class PipelineNoise:
    """Step noise as a pipeline draws it, for `rollout(noise=...)`: from the generator that x_T came from.

    Args:
        shape: latent shape of one sample.
        seeds: one per sample.
        dtype: dtype of the latents.
    """

    def __init__(self, shape: Sequence[int], seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._dtype = dtype
        self(shape, seeds, (), 0, 0)  # x_T

    def __call__(
        self, shape: Sequence[int], seeds: Sequence[int], branches: Sequence[int], step: int, run_seed: int
    ) -> Tensor:
        """(B, *shape) standard normal."""
        return torch.stack([torch.randn(tuple(shape), generator=g, dtype=self._dtype) for g in self._generators])


def plain_call_gap(
    policy: Adapter, prompt: str, seed: int = 0, *, steps: int = 2, guidance: float = 1.0, negative_prompt: str = ""
) -> Gap:
    """Difference between a plain call of the pipeline and the rollout with its own dynamics.

    A scheduler whose steps no table has is compared without the settings that make it so (UniPC at order 1 without
    corrector). Nothing of policy and pipeline is changed. Runs outside of the policy's autocast.

    Args:
        policy: the model; its weights as they are, a LoRA included.
        prompt: the text.
        seed: of x_T and step noise.
        steps: inference steps.
        guidance: guidance scale.
        negative_prompt: text of the unconditional branch.

    Returns:
        The differences; a mean above `LIMIT` means that the pipeline family is adapted wrongly.
    """
    with torch.no_grad(), _comparable(policy):
        torch.manual_seed(seed)
        theirs = policy.pipeline(
            prompt=prompt,
            num_inference_steps=steps,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="pt",
            return_dict=False,
            **policy.call_arguments(guidance, negative_prompt),
        )[0]
        torch.manual_seed(seed)
        plan = make_plan(policy.own_dynamics(steps), guidance=guidance, record=[])
        noise = _noise(policy, seed)
        ours = rollout(policy, plan, [prompt], [seed], negative_prompt=negative_prompt, noise=noise).images
    if ours is None:
        raise RuntimeError("the rollout returned no images")
    difference = (ours.float() - torch.as_tensor(theirs).to(ours).float()).abs()
    return Gap(float(difference.max()), float(difference.mean()))


def _noise(policy: Adapter, seed: int) -> Any:
    if not type(policy.scheduler).__name__.startswith("FlowMatch"):
        return PipelineNoise(policy.latent_shape, [seed], policy.dtype)

    def from_global_generator(shape: Sequence[int], *_: Any) -> Tensor:
        """Flow pipelines pass no generator to their scheduler."""
        return torch.randn(1, *shape, dtype=policy.dtype, device=policy.device)

    return from_global_generator


@contextmanager
def _comparable(policy: Adapter) -> Iterator[None]:
    """Policy and pipeline with one plain scheduler, quiet, without filters on the images; all put back after."""
    pipeline = policy.pipeline
    scheduler = plain(policy.scheduler)
    changes: list[tuple[Any, str, Any]] = [
        (policy, "scheduler", scheduler),
        (policy, "autocast", nullcontext),
        (pipeline, "scheduler", scheduler),
        (pipeline, "_progress_bar_config", {"disable": True}),
        *(
            (pipeline, name, None)
            for name in ("safety_checker", "watermark", "guider", "ocr_guider")
            if hasattr(pipeline, name)
        ),
    ]
    before = [(thing, name, getattr(thing, name, None)) for thing, name, _ in changes]
    counts = policy.meter.counts.copy()
    devices = [policy.device] if policy.device.type == "cuda" else []
    with policy.text_encoders_at_work(), torch.random.fork_rng(devices=devices):
        for thing, name, value in changes:
            setattr(thing, name, value)
        try:
            yield
        finally:
            for thing, name, value in before:
                setattr(thing, name, value)
            policy.meter.counts = counts
