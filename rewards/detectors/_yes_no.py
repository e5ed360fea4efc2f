"""Answers in words to questions that have two: what a judge of P(yes) would say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from diffalign.evaluation.judges import YesProbability, judge_name


class YesNoAnswers:
    """`yes` where P(yes) is at least 1/2, else `no`; an empty answer where there is no probability."""

    def __init__(self, judge: YesProbability) -> None:
        """Wraps a judge of yes-or-no questions."""
        self._judge: Any = judge
        self.name = judge_name(judge)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the judge's model, if it has one here."""
        if hasattr(self._judge, "to"):
            self._judge.to(device, dtype)
        return self

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result."""
        return {**self._judge.describe(), "answers": "yes or no"}

    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """See `diffalign.evaluation.judges.Answerer`."""
        found = self._judge(images, questions)
        return [["" if math.isnan(p) else "yes" if p >= 0.5 else "no" for p in values] for values in found]
