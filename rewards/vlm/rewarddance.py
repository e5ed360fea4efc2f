"""Pairs judged by P(yes) of a local model, against a reference image or within the group (RewardDance, 2509.08826)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata
from diffalign.rewards.pairs import AnchoredReward, PairwiseReward
from diffalign.rewards.vlm.local import LocalVLM
from diffalign.rewards.vlm.logit import check_question, fill, short_name, yes_readout

PAIR_QUESTION = (
    "Two images were made for the same description.\nDescription: {prompt}\n"
    "What counts: {principle}\nIs the first image better than the second one? Please answer yes or no."
)
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
WEIGHTS = ((MODEL, "config.json"),)
LICENCE = "that of the model (Qwen2.5-VL-7B: Apache-2.0); RewardDance's own InternVL weights are not released"
PRINCIPLE = "that the image shows what is described, and that it looks right and good"


class YesJudge:
    """Probability that the first of two images is the better one: P(yes) against P(no) of a local model.

    The principle in the question is free text, so that one model judges by different criteria.
    """

    differentiable = True

    def __init__(
        self,
        vlm: LocalVLM,
        name: str,
        *,
        template: str = PAIR_QUESTION,
        principle: str = PRINCIPLE,
        batch_size: int = 8,
    ) -> None:
        """Wraps a model.

        Args:
            vlm: The model.
            name: Name in logs.
            template: Question with `{prompt}`, and `{principle}` where wanted.
            principle: What makes an image better.
            batch_size: Most pairs per forward pass.

        Raises:
            ValueError: If the template lacks `{prompt}`, or batch_size is below 1.
        """
        check_question(template, batch_size)
        self.name = name
        self.vlm = vlm
        self._template = fill(template, principle=principle)
        self._read = yes_readout(vlm)
        self._batch_size = batch_size

    @classmethod
    def load(cls, model: str, *, dtype: torch.dtype | str = "auto", **options: Any) -> Self:
        """Loads a model.

        Args:
            model: Hub id or folder of a chat model that takes two images.
            dtype: Of the weights.
            **options: Further arguments of the class.

        Raises:
            MissingWeights: If the model's files cannot be found.
        """
        return cls(LocalVLM.load(model, dtype=dtype), f"rewarddance_{short_name(model)}", **options)

    def compare(
        self, images_a: Tensor, images_b: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]
    ) -> Tensor:
        """P(first better), `(P,)`, of pairs `(P, 3, H, W)`; one order only; the caller judges the other order."""
        texts = [self.vlm.question(fill(self._template, prompt=self.vlm.plain(prompt)), images=2) for prompt in prompts]
        wins = []
        for start in range(0, len(texts), self._batch_size):
            part = slice(start, start + self._batch_size)
            wins.append(self._read(self.vlm.next_logits([images_a[part], images_b[part]], texts[part])))
        return torch.cat(wins).to(images_a.device)


class _Dance:
    """Base class of both rewards: they own a `YesJudge` and move it."""

    differentiable = True
    licence = LICENCE
    weights: tuple[tuple[str, str], ...] = WEIGHTS

    def __init__(self, model: str = MODEL, *, dtype: torch.dtype | str = "auto", **options: Any) -> None:
        """Loads a model; arguments and errors as for `YesJudge.load`."""
        self._yes = YesJudge.load(model, dtype=dtype, **options)
        super().__init__(self._yes)  # type: ignore[call-arg]  # the scope that this is mixed into takes the judge

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model."""
        self._yes.vlm.to(device, dtype)
        return self


class RewardDance(_Dance, AnchoredReward):
    """P(yes) that an image beats its reference, `metadata["reference_image"]`, both orders averaged."""


class GroupDance(_Dance, PairwiseReward):
    """Mean P(yes) that an image beats the others of its group, both orders averaged."""
