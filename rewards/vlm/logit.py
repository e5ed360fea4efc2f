"""Scores from the logits of a local vision-language model: P(yes), or the mean of a grade."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.contract import check_contract
from diffalign.rewards.functions.likelihood import expected_grade, yes_probability
from diffalign.rewards.vlm.answers import NO, YES, grade_ids, token_ids
from diffalign.rewards.vlm.local import LocalVLM

Read = Callable[[Tensor], Tensor]
Readout = Literal["yes", "grade"]

FIGURE_QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
"""VQAScore's question."""
GRADE_QUESTION = (
    "How well does this image fit its description? Count what is missing, wrong or malformed.\n"
    "Description: {prompt}\nAnswer with one digit from 0 (nothing fits) to {highest} (all of it fits)."
)
EDIT_QUESTION = (
    "The first image was edited into the second one.\nInstruction: {prompt}\n{requirement}\n"
    "Was the instruction carried out, and everything else left as it was? "
    "Answer with one digit from 0 (not at all) to {highest} (perfectly)."
)
SOURCE_KEY = "source_image"


def short_name(source: str) -> str:
    """Last part of a hub id or folder, for the name of a reward."""
    return Path(source).name.lower()


def fill(template: str, **fields: object) -> str:
    """Puts fields into a template; other braces, of the prompt too, stay as they are."""
    names = sorted(fields, key=lambda name: name == "prompt")  # the prompt last: its own braces are text
    for name in names:
        template = template.replace("{" + name + "}", str(fields[name]))
    return template


def check_question(template: str, batch_size: int) -> None:
    """Raises a ValueError if a template lacks `{prompt}`, or batch_size is below 1."""
    if "{prompt}" not in template:
        raise ValueError(f"a template needs {{prompt}} where the prompt goes, got {template!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


class LogitReward(Reward):
    """One question per image to a local model, and a number read from the logits of the answer's first token."""

    differentiable = True
    range = (0.0, 1.0)
    needs = frozenset({"prompt"})
    licence = "that of the model (Qwen2.5-VL-7B: Apache-2.0)"

    def __init__(self, vlm: LocalVLM, name: str, template: str, read: Read, *, batch_size: int = 8) -> None:
        """Wraps a model; subclasses and factories load one.

        Args:
            vlm: The model.
            name: Name in logs.
            template: Question with `{prompt}`.
            read: Logits `(B, V)` -> scores `(B,)`.
            batch_size: Most images per forward pass.

        Raises:
            ValueError: If the template lacks `{prompt}`, or batch_size is below 1.
        """
        check_question(template, batch_size)
        self.name = name
        self._vlm, self._template, self._read, self._batch_size = vlm, template, read, batch_size

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model."""
        self._vlm.to(device, dtype)
        return self

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)` in [0, 1]."""
        scores = []
        for start in range(0, len(images), self._batch_size):
            part = slice(start, start + self._batch_size)
            scores.append(self._score(images[part], prompts[part], metadata[part]))
        return torch.cat(scores).to(images.device)

    def self_test(self) -> None:
        """Contract on three images of noise."""
        images = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
        records = [{SOURCE_KEY: images[1]}] * 3
        check_contract(self, images, ["a cat", "a dog on a red chair", "a cube"], records)

    def _score(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores of one batch."""
        texts = [self._vlm.question(fill(self._template, prompt=self._vlm.plain(prompt))) for prompt in prompts]
        return self._read(self._vlm.next_logits([images], texts))


def yes_readout(vlm: LocalVLM, among: str = "yes_no") -> Read:
    """P(yes) by the model's tokens; `among` is `yes_no` (p / (p + q)) or `all` (p among all tokens).

    Raises:
        ValueError: If `among` is neither.
    """
    if among not in ("yes_no", "all"):
        raise ValueError(f"among {among!r} is unknown; valid: yes_no, all")
    yes = token_ids(vlm.tokenizer, YES)
    no = token_ids(vlm.tokenizer, NO) if among == "yes_no" else None
    return lambda logits: yes_probability(logits, yes, no)


class VQAScore(LogitReward):
    """Probability that a model says yes when asked whether the image shows the prompt (arXiv 2404.01291)."""

    weights = (("Qwen/Qwen2.5-VL-7B-Instruct", "config.json"),)

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-VL-7B-Instruct",
        *,
        question: str = FIGURE_QUESTION,
        among: Literal["yes_no", "all"] = "yes_no",
        dtype: torch.dtype | str = "auto",
        batch_size: int = 8,
    ) -> None:
        """Loads the model.

        Args:
            model: Hub id or folder of a chat model that `AutoModelForImageTextToText` loads.
            question: Template with `{prompt}`.
            among: `yes_no`: yes against no, all spellings; `all`: the spellings of yes among all tokens, which is
                nearer to what t2v_metrics returns for these models (there the one token "Yes").
            dtype: Of the weights.
            batch_size: Most images per forward pass.

        Raises:
            MissingWeights: If the model's files cannot be found.
            ValueError: If an argument is outside its choices.
        """
        vlm = LocalVLM.load(model, dtype=dtype)
        suffix = "" if among == "yes_no" else "_all"
        super().__init__(
            vlm, f"vqascore{suffix}_{short_name(model)}", question, yes_readout(vlm, among), batch_size=batch_size
        )


class MLLMLogit(LogitReward):
    """Mean grade (or P(yes)) of a local model, for images or for edits of a source image (UniWorld-V2, 2510.16888)."""

    weights = (("Qwen/Qwen2.5-VL-7B-Instruct", "config.json"),)

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-VL-7B-Instruct",
        *,
        readout: Readout = "grade",
        highest: int = 5,
        edit: bool = False,
        template: str | None = None,
        dtype: torch.dtype | str = "auto",
        batch_size: int = 8,
    ) -> None:
        """Loads the model.

        Args:
            model: As for `VQAScore`; Edit-R1 used Qwen2.5-VL-32B.
            readout: `grade`: expectation over the digits 0 to `highest`, divided by it; `yes`: P(yes) against P(no).
            highest: Highest grade, 1 to 9.
            edit: Whether `metadata["source_image"]`, `(3, H, W)`, is shown first, and the prompt is an instruction;
                `metadata["requirement"]` is put into the question. An image without a source is NaN.
            template: Question with `{prompt}`, and `{highest}`, `{requirement}` where wanted; None: ours. Edit-R1's
                own wording is in its repository, and its scores are those of that wording.
            dtype: Of the weights.
            batch_size: Most images per forward pass.

        Raises:
            MissingWeights: If the model's files cannot be found.
            ValueError: If an argument is outside its choices.
        """
        if readout not in ("grade", "yes"):
            raise ValueError(f"readout {readout!r} is unknown; valid: grade, yes")
        vlm = LocalVLM.load(model, dtype=dtype)
        if readout == "yes":
            read, default = yes_readout(vlm), FIGURE_QUESTION
        else:
            grades = grade_ids(vlm.tokenizer, highest)
            read, default = (lambda logits: expected_grade(logits, grades)), GRADE_QUESTION
        template = fill(template or (EDIT_QUESTION if edit else default), highest=highest)
        kind = f"{'edit_' if edit else ''}{readout}"
        super().__init__(vlm, f"mllm_{kind}_{short_name(model)}", template, read, batch_size=batch_size)
        self._edit = edit
        self.needs = frozenset({"prompt", "metadata", "source_image"}) if edit else frozenset({"prompt"})

    def _score(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores of one batch; with `edit` of those that have a source."""
        if not self._edit:
            return super()._score(images, prompts, metadata)
        have = [index for index, record in enumerate(metadata) if record.get(SOURCE_KEY) is not None]
        scores = images.new_full((len(images),), torch.nan, dtype=torch.promote_types(images.dtype, torch.float32))
        if not have:
            return scores
        where = torch.tensor(have, device=images.device)
        sources = torch.stack([metadata[index][SOURCE_KEY] for index in have]).to(images)
        texts = [self._ask(prompts[index], metadata[index]) for index in have]
        read = self._read(self._vlm.next_logits([sources, images[where]], texts))
        return scores.index_copy(0, where, read.to(scores))

    def _ask(self, prompt: str, record: Metadata) -> str:
        """The question about one edit."""
        requirement = self._vlm.plain(str(record.get("requirement", "")))
        text = fill(self._template, prompt=self._vlm.plain(prompt), requirement=requirement)
        return self._vlm.question(text, images=2)
