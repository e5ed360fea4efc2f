"""Partial credit: checklists, ordered steps, ranges, answers to questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def checklist(passed: Tensor, weights: Tensor | None = None) -> Tensor:
    """Satisfied share of a checklist, `(B,)` in [0, 1]; checks that could not be judged (NaN) leave it.

    ACE-RL (arXiv 2509.04903); equal weights are its form.

    Args:
        passed: `(B, K)` in [0, 1], NaN where there is no verdict.
        weights: `(K,)` or `(B, K)`, not negative.

    Raises:
        ValueError: If a weight is negative.
    """
    w = torch.ones_like(passed) if weights is None else weights.to(passed).expand_as(passed)
    if bool((w < 0).any()):
        raise ValueError("weights of a checklist must not be negative")
    known = passed.isfinite()
    w = torch.where(known, w, 0.0)
    return (w * torch.where(known, passed, 0.0)).sum(1) / w.sum(1)


def prefix_credit(passed: Tensor, mask: Tensor | None = None) -> Tensor:
    """Share of ordered sub-checks that pass before the first failure, `(B,)` in [0, 1].

    The reward of embodied GRPO's matched prefix: what comes after a failed step earns nothing.

    Args:
        passed: `(B, K)` bool, in the order in which they have to hold.
        mask: `(B, K)`, 1 where there is a check.

    Raises:
        ValueError: If a row has no check.
    """
    valid = torch.ones_like(passed, dtype=torch.bool) if mask is None else mask.bool()
    if not bool(valid.any(1).all()):
        raise ValueError("every row needs at least one check")
    reached = (passed.bool() | ~valid).cumprod(1).bool()
    return (reached & valid).sum(1) / valid.sum(1)


def affine_range(r: Tensor, source: tuple[float, float], target: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """Maps a reward from one range to another, like r; values outside stay outside (ToolRL's normalised grades).

    Args:
        r: Rewards.
        source: Nominal (low, high) of r.
        target: (low, high) afterwards.

    Raises:
        ValueError: If the source range is empty.
    """
    low, high = source
    if not low < high:
        raise ValueError(f"the source range must have low < high, got {source}")
    return target[0] + (r - low) * (target[1] - target[0]) / (high - low)


def caption_then_ask(
    images: Tensor,
    questions: Sequence[Sequence[tuple[str, str]]],
    describe: Callable[[Tensor], Sequence[str]],
    answer: Callable[[str, str], str | None],
) -> Tensor:
    """Share of questions that a frozen reader answers rightly from a caption alone, `(B,)` in [0, 1].

    RACRO turned to images: what a caption of the image does not carry, it does not show. Answers are compared without
    case and surrounding punctuation.

    Args:
        images: `(B, 3, H, W)`.
        questions: Per image its (question, right answer) pairs.
        describe: Captions of images.
        answer: `(caption, question) -> answer`, None where there is none: such a question leaves the share.

    Returns:
        Scores; NaN without any answer.

    Raises:
        ValueError: If captions or questions do not match the images.
    """
    captions = describe(images)
    if not len(captions) == len(questions) == len(images):
        raise ValueError(f"{len(images)} images, {len(captions)} captions and {len(questions)} lists of questions")
    scores = []
    for caption, asked in zip(captions, questions, strict=True):
        said = [(answer(caption, question), right) for question, right in asked]
        hits = [_plain(given) == _plain(right) for given, right in said if given is not None]
        scores.append(sum(hits) / len(hits) if hits else float("nan"))
    return torch.tensor(scores, dtype=torch.float32, device=images.device)


def _plain(text: str) -> str:
    """An answer without case, surrounding blanks and punctuation."""
    return text.strip().strip(".!?\"'").strip().casefold()
