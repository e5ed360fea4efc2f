"""Pairs judged by P(yes) of a local model, against a reference image or within the group (RewardDance, 2509.08826)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.scopes import AnchoredReward, PairwiseReward
from diffalign.rewards.vlm.local import LocalVLM
from diffalign.rewards.vlm.logit import fill, short_name, yes_readout

PAIR_QUESTION = (
    "Two images were made for the same description.\nDescription: {prompt}\n"
    "What counts: {principle}\nIs the first image better than the second one? Please answer yes or no."
)
PRINCIPLE = "that the image shows what is described, and that it looks right and good"


class YesJudge:
    """Probability that the first of two images is the better one: P(yes) against P(no) of a local model.

    The principle in the question is free text, so that one model judges by different criteria.
    """

    differentiable = True

    def __init__(self, vlm: LocalVLM, name: str, *, template: str = PAIR_QUESTION, principle: str = PRINCIPLE) -> None:
        """Wraps a model.

        Args:
            vlm: The model.
            name: Name in logs.
            template: Question with `{prompt}`, and `{principle}` where wanted.
            principle: What makes an image better.

        Raises:
            ValueError: If the template lacks `{prompt}`.
        """
        if "{prompt}" not in template:
            raise ValueError(f"a template needs {{prompt}} where the prompt goes, got {template!r}")
        self.name = name
        self.vlm = vlm
        self._template = fill(template, principle=principle)
        self._read = yes_readout(vlm)

    def compare(
        self, images_a: Tensor, images_b: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]
    ) -> Tensor:
        """P(first better), `(P,)`, of pairs `(P, 3, H, W)`; one order only, whoever asks turns them round."""
        texts = [self.vlm.question(fill(self._template, prompt=prompt), images=2) for prompt in prompts]
        return self._read(self.vlm.next_logits([images_a, images_b], texts)).to(images_a.device)


class RewardDance(AnchoredReward):
    """P(yes) that an image beats its reference, `metadata["reference_image"]`, both orders averaged."""

    differentiable = True
    weights = (("Qwen/Qwen2.5-VL-7B-Instruct", "config.json"),)
    licence = "of the model that is named; RewardDance's own InternVL weights are not released"

    def __init__(self, judge: YesJudge) -> None:
        """Wraps a judge; `rewarddance` loads one."""
        super().__init__(judge)
        self._model = judge.vlm

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> RewardDance:
        """Moves the model."""
        self._model.to(device, dtype)
        return self


class GroupDance(PairwiseReward):
    """Mean P(yes) of an image against the rest of its group, both orders averaged."""

    differentiable = True
    licence = RewardDance.licence

    def __init__(self, judge: YesJudge, *, pairs_per_call: int = 8) -> None:
        """Wraps a judge."""
        super().__init__(judge, pairs_per_call=pairs_per_call)
        self._model = judge.vlm

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GroupDance:
        """Moves the model."""
        self._model.to(device, dtype)
        return self


def rewarddance(
    model: str = "Qwen/Qwen2.5-VL-7B-Instruct",
    *,
    against: Literal["reference", "group"] = "reference",
    template: str = PAIR_QUESTION,
    principle: str = PRINCIPLE,
    dtype: torch.dtype | str = "auto",
) -> RewardDance:
    """Loads a model as a judge of pairs.

    Args:
        model: Hub id or folder of a chat model that takes two images.
        against: `reference`: `metadata["reference_image"]`, pointwise; `group`: the other images of the prompt.
        template: Question with `{prompt}`, and `{principle}` where wanted.
        principle: What makes an image better.
        dtype: Of the weights.

    Raises:
        MissingWeights: If the model's files are not to be had.
        ValueError: If an argument is outside its choices.
    """
    if against not in ("reference", "group"):
        raise ValueError(f"against {against!r} is unknown; valid: reference, group")
    judge = YesJudge(
        LocalVLM.load(model, dtype=dtype), f"rewarddance_{short_name(model)}", template=template, principle=principle
    )
    made: Reward = RewardDance(judge) if against == "reference" else GroupDance(judge)
    return made  # type: ignore[return-value]
