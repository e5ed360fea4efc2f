"""Images of prompts from a policy, one seed each, every one finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from diffalign.commands._image_folder import sample_file
from diffalign.data import Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffalign.models import Adapter


class Sample(NamedTuple):
    """One image to draw."""

    line: int
    copy: int
    prompt: str
    seed: int


def plan_samples(records: Sequence[Record], images_per_prompt: int, seed: int) -> list[Sample]:
    """One sample per image; image j of line i has the seed `seed + i * images_per_prompt + j`, in diffusers' sense."""
    return [
        Sample(i, j, record["prompt"], seed + i * images_per_prompt + j)
        for i, record in enumerate(records)
        for j in range(images_per_prompt)
    ]


def drawn_images(
    policy: Adapter,
    samples: Sequence[Sample],
    *,
    guidance_scale: float,
    num_inference_steps: int,
    negative_prompt: str = "",
    batch_size: int = 16,
    progress: bool = True,
) -> Iterator[tuple[Sample, Tensor]]:
    """Each sample with its (3, height, width) image in [0, 1] on the CPU, by the steps of the pipeline's scheduler.

    Args:
        policy: the model.
        samples: what to draw.
        guidance_scale: at most 1: the conditional branch alone.
        num_inference_steps: steps.
        negative_prompt: text of the unconditional branch.
        batch_size: images per forward.
        progress: show a progress bar.

    Raises:
        ValueError: images that are not finite, with their stage; none of their batch has been yielded.
    """
    from tqdm import tqdm

    from diffalign.sampling import make_plan, rollout

    plan = make_plan(policy.own_dynamics(num_inference_steps), record=[], guidance=guidance_scale)
    with tqdm(total=len(samples), desc="generate", unit="image", disable=not progress) as bar:
        for start in range(0, len(samples), batch_size):
            chunk = samples[start : start + batch_size]
            prompts, seeds = [one.prompt for one in chunk], [one.seed for one in chunk]
            drawn = rollout(policy, plan, prompts, seeds, negative_prompt=negative_prompt)
            if drawn.images is None:
                raise RuntimeError("the rollout returned no images")
            check_finite(chunk, drawn.x, drawn.images, policy.dtype)
            yield from zip(chunk, drawn.images.float().cpu(), strict=True)
            bar.update(len(chunk))


def check_finite(samples: Sequence[Sample], latents: Tensor, images: Tensor, dtype: torch.dtype) -> None:
    """Refuse NaN and infinity, which an 8-bit file would show as black.

    Args:
        samples: what was drawn.
        latents: `(B, ...)` final latents.
        images: `(B, 3, H, W)`.
        dtype: of the weights, for the advice.

    Raises:
        ValueError: names the images and the stage, denoiser or VAE.
    """
    from_denoiser = ~latents.isfinite().flatten(1).all(1).cpu()
    from_vae = ~images.isfinite().flatten(1).all(1).cpu() & ~from_denoiser
    found = []
    for stage, flags in (("denoiser", from_denoiser), ("VAE", from_vae)):
        bad = [sample for sample, flag in zip(samples, flags.tolist(), strict=True) if flag]
        if bad:
            names = ", ".join(f"{sample_file(one.line, one.copy)} (seed {one.seed})" for one in bad)
            found.append(f"the {stage} gave {names}")
    if found:
        advice = f"; {dtype} may overflow: try --dtype float32" if dtype.itemsize < 4 else ""
        raise ValueError(f"some images are not finite: {'; '.join(found)}{advice}")
