"""The one place where rewards are called, and the handling of their failures.

A failure of a sample (NaN in the image, a judge without an answer, a score that is not finite) is NaN: the sample
leaves numerator and denominator of every statistic. An error of the wiring (wrong shape, wrong type, any other
exception) is raised at once: a run that went on would only look healthy.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Reward, ScoringFailure
from diffalign.rewards.images import check_images
from diffalign.rewards.outputs import as_scores, check_output
from diffalign.rewards.user_code import naming

logger = logging.getLogger(__name__)


def score(
    rewards: Mapping[str, Reward],
    images: Tensor,
    prompts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    *,
    grad: bool = False,
) -> dict[str, Tensor]:
    """Scores images by several rewards, each under its own name.

    Rewards whose scope is not pointwise need the whole groups of a rollout in one call. Records are passed as
    copies, nested containers included; tensors in them are shared and must not be changed in place.

    Args:
        rewards: Rewards by name.
        images: `(B, 3, H, W)` float in [0, 1].
        prompts: `B` prompts.
        metadata: `B` records.
        grad: Whether scores keep the graph of the images, for back-propagation through the rewards. Without it nothing
            is recorded.

    Returns:
        For each name `(B,)` float32 on the device of the images; NaN = could not be scored, never an infinity. A NaN
        sends no gradient.

    Raises:
        ValueError: If the inputs do not fit together, images leave [0, 1], a reward returns the wrong shape or type,
            changes the images or lacks the gradient that it promises, or `grad` is set and a reward is not
            differentiable, the images are detached, or gradients are switched off. Exceptions of a reward pass through,
            with a note that names the reward and the place in its code.
    """
    if not isinstance(rewards, Mapping):
        raise ValueError(f"rewards are a mapping {{name: reward}}, got {rewards!r}: make one with rewards.prepare(...)")
    sound = _check_inputs(images, prompts, metadata)
    if grad:
        _check_graph(rewards, images)
    clean = images if bool(sound.all()) else torch.where(sound[:, None, None, None], images, 0.0)
    out = {}
    for name, reward in rewards.items():
        with naming(f"reward {name!r}"), torch.set_grad_enabled(grad):
            values = _call(name, reward, clean, list(prompts), [copied(record) for record in metadata])
            out[name] = torch.where(sound & values.isfinite(), values, torch.nan)
    return out


def count_failures(scores: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of samples that each reward could not score, from `(B,)` scores by name."""
    return {name: int(values.isnan().sum()) for name, values in scores.items()}


def copied(value: Any) -> Any:
    """Nested dicts, lists, tuples and sets copied; what they hold (numbers, texts, tensors) is shared."""
    if isinstance(value, Mapping):
        return {key: copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value)) if type(value) in (list, tuple) else value
    return set(value) if isinstance(value, set) else value


def _check_inputs(images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> Tensor:
    """`(B,)` bool: the samples whose image is finite; raises on inputs that do not fit together."""
    sound = check_images(images)
    if len(prompts) != len(images) or len(metadata) != len(images):
        raise ValueError(
            f"{len(images)} images, {len(prompts)} prompts and {len(metadata)} metadata records: give one each"
        )
    return sound


def _check_graph(rewards: Mapping[str, Reward], images: Tensor) -> None:
    """Raises where `grad` is set and no gradient could flow."""
    without = [name for name, reward in rewards.items() if not reward.differentiable]
    if without:
        raise ValueError(
            f"reward {', '.join(map(repr, without))} has no gradient with respect to the images. Methods that "
            "back-propagate through the reward (ReFL, DRaFT, AlignProp, Adjoint Matching) and noise optimisation need "
            "one; policy gradients (GRPO, DDPO), NFT, AWM, preference pairs and search do not: use it with one of "
            "those, or as a held-out reward (eval_rewards)"
        )
    if not torch.is_grad_enabled():
        raise ValueError("score(grad=True) under torch.no_grad() or inference_mode(): no graph would be kept")
    if not images.requires_grad:
        raise ValueError(
            "score(grad=True) needs images that require a gradient, these are detached: decode with the graph of the "
            "latents, without .detach(), no_grad() or a round trip through 8-bit images"
        )


def _call(name: str, reward: Reward, images: Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> Tensor:
    """`(B,)` float32 scores of one reward, checked; all NaN if it raises `ScoringFailure`."""
    version = None if images.is_inference() else images._version
    try:
        returned = reward(images, prompts, metadata)
    except ScoringFailure as failure:
        logger.warning("reward %r could not score %d images: %s", name, len(images), failure)
        return torch.nan + 0 * images.flatten(1).sum(1).float()  # a sum, so that the graph stays whole
    if version is not None and images._version != version:
        raise ValueError(f"reward {name!r} changed the images in place; work on a copy")
    values = as_scores(name, returned, images.device)
    check_output(name, reward.differentiable, values, images)
    return values.to(device=images.device, dtype=torch.float32)
