"""The reward of the shapes world: GenEval's rules on the objects that the detector finds in a 32x32 scene.

Four scores of one image: `soft` is the mean of count, colour, position and exclude credits, each in [0, 1], and 1
exactly when the image is correct; `strict` is that verdict itself, 0 or 1; `reference` is the soft form of the reward
server that Flow-GRPO trained with, which can be very negative (see `diffalign.evaluation.geneval`); `graded` is a
denser soft score that also counts confidence and superfluous objects (see `diffalign.evaluation.geneval_graded`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffalign.evaluation import geneval
from diffalign.evaluation.geneval_graded import graded
from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.contract import check_contract
from diffalign.shapes import detect, prompts, render_batch, sample_scene

Variant = Literal["soft", "strict", "reference", "graded"]
SCORERS: dict[str, Callable[[Sequence[geneval.Detection], Metadata], float]] = {
    "soft": geneval.soft,
    "strict": geneval.correct,
    "reference": geneval.soft_reference,
    "graded": graded,
}


class ShapesReward(Reward):
    """GenEval's score of scenes of coloured shapes."""

    needs = frozenset({"metadata"})
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, variant: Variant = "soft") -> None:
        """Chooses the score.

        Args:
            variant: soft, strict, reference or graded; see the module.

        Raises:
            ValueError: If the variant is none of these.
        """
        if variant not in SCORERS:
            raise ValueError(f"shapes variant {variant!r} is unknown; valid: {', '.join(SCORERS)}")
        self.name = "shapes" if variant == "soft" else f"shapes_{variant}"
        self.range = None if variant == "reference" else (0.0, 1.0)
        self._scorer = SCORERS[variant]

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of scenes `(B, 3, 32, 32)` in [0, 1]; the records are GenEval lines.

        Raises:
            ValueError: If a record has no `include` clauses.
        """
        for prompt, record in zip(prompts, metadata, strict=True):
            if not record.get("include"):
                raise ValueError(
                    f"reward {self.name!r} needs GenEval metadata (tag, include, ...), prompt {prompt!r} has "
                    f"{sorted(record)}; take prompts from shapes:train, or a .jsonl with a metadata field"
                )
        found = detect(images.detach())
        scores = [float(self._scorer(objects, record)) for objects, record in zip(found, metadata, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def self_test(self) -> None:
        """Contract on rendered scenes, and the order of a scene and its blank background."""
        lines: list[dict[str, Any]] = prompts("train")[::40][:6]
        generator = torch.Generator().manual_seed(0)
        images = render_batch([sample_scene(line, generator) for line in lines])
        texts = [line["prompt"] for line in lines]
        scores = check_contract(self, images, texts, lines)
        blank = self(torch.full_like(images, 0.5), texts, lines)
        if not scores.mean() > blank.mean():
            raise ValueError(f"{self.name}: rendered scenes score {scores.tolist()}, blank images {blank.tolist()}")


def strict() -> ShapesReward:
    """`shapes` with the benchmark's verdict, 0 or 1."""
    return ShapesReward("strict")


def dense() -> ShapesReward:
    """The denser soft score, for training."""
    return ShapesReward("graded")
