"""A vision-language model of transformers on this machine as a judge that answers questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from diffalign.evaluation.judges import Answerer, AnswerProbability, YesProbability
from diffalign.rewards.detectors._frozen import Placement, file_hash, read_placement
from diffalign.rewards.detectors._grouping import regroup
from diffalign.rewards.detectors._yes_no import YesNoAnswers
from diffalign.rewards.vlm.answers import token_ids
from diffalign.rewards.vlm.local import LocalVLM
from diffalign.rewards.vlm.logit import short_name, yes_readout

HUB = "Qwen/Qwen2.5-VL-7B-Instruct"
GENEVAL_2_HUB = "Qwen/Qwen3-VL-8B-Instruct"
YES_TEMPLATE = "{question} Answer with yes or no."
Value = TypeVar("Value")
Asked = tuple[int, str]
"""The image's row, and the question in the model's chat form."""


class VlmJudge:
    """What the three kinds of answer share: the model, the form of a question, the batches."""

    def __init__(self, vlm: LocalVLM, place: Placement, source: str, template: str) -> None:
        """Wraps a loaded model; `template` holds `{question}`."""
        if "{question}" not in template:
            raise ValueError(f"the template of vlm needs {{question}}, got {template!r}")
        self._vlm, self._place, self._source, self._template = vlm, place, source, template
        self.name = short_name(source)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model; its precision is an option of its own and stays."""
        self._vlm.to(device)
        return self

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result."""
        commit = getattr(self._vlm.model.config, "_commit_hash", None)
        dtype = str(next(iter(self._vlm.model.parameters())).dtype).removeprefix("torch.")
        revision = commit or file_hash(self._source)
        return {
            "name": self.name, "model": self._source, "revision": revision, "dtype": dtype, "template": self._template,
        }  # fmt: skip

    def _questions(self, questions: Sequence[Sequence[str]]) -> list[Asked]:
        """All questions of all images, in order."""
        return [
            (row, self._vlm.question(self._template.replace("{question}", self._vlm.plain(text))))
            for row, texts in enumerate(questions)
            for text in texts
        ]

    def _logits(self, images: Tensor, asked: Sequence[Asked]) -> Iterator[Tensor]:
        """Logits `(n, V)` of the answers' first token, batch by batch."""
        for start in range(0, len(asked), self._place.batch_size):
            rows, texts = zip(*asked[start : start + self._place.batch_size], strict=True)
            yield self._vlm.next_logits([images[list(rows)]], texts)


class VlmYes(VlmJudge):
    """P(yes) against P(no), all spellings."""

    @torch.no_grad()
    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[float]]:
        """See `diffalign.evaluation.judges.YesProbability`."""
        asked, read = self._questions(questions), yes_readout(self._vlm)
        values = [value for logits in self._logits(images, asked) for value in read(logits).tolist()]
        return regroup(values, questions)


class VlmProbability(VlmJudge):
    """Probability of given answers, by their first tokens."""

    @torch.no_grad()
    def __call__(
        self, images: Tensor, questions: Sequence[Sequence[str]], answers: Sequence[Sequence[Sequence[str]]]
    ) -> list[list[float]]:
        """See `diffalign.evaluation.judges.AnswerProbability`."""
        asked = self._questions(questions)
        first = [self._first_tokens(spellings) for wanted in answers for spellings in wanted]
        rows = [row for logits in self._logits(images, asked) for row in logits.softmax(-1)]
        return regroup([float(row[ids].sum()) for row, ids in zip(rows, first, strict=True)], questions)

    def _first_tokens(self, spellings: Sequence[str]) -> list[int]:
        """Ids of the first tokens of some spellings, each once."""
        encode = self._vlm.tokenizer.encode
        return list(dict.fromkeys(int(ids[0]) for s in spellings if (ids := encode(s, add_special_tokens=False))))


class VlmAnswer(VlmJudge):
    """Answers in words, the most likely token each time."""

    def __init__(self, vlm: LocalVLM, place: Placement, source: str, template: str, longest: int) -> None:
        """Wraps a loaded model; an answer ends after `longest` tokens."""
        super().__init__(vlm, place, source, template)
        self._longest = longest

    @torch.no_grad()
    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """See `diffalign.evaluation.judges.Answerer`; questions go one by one, so that none is padded."""
        words = []
        for row, text in self._questions(questions):
            inputs = self._vlm.inputs([images[row : row + 1]], [text])
            ids = self._vlm.model.generate(**inputs, max_new_tokens=self._longest, do_sample=False)
            answer = ids[0, inputs["input_ids"].shape[1] :]
            words.append(str(self._vlm.tokenizer.decode(answer, skip_special_tokens=True)).strip())
        return regroup(words, questions)


def yes(model: str = HUB, *, template: str = YES_TEMPLATE, **placement: Any) -> YesProbability:
    """Loads a judge of yes-or-no questions.

    Args:
        model: Hub id or local folder of a chat model that `AutoModelForImageTextToText` loads.
        template: How a question is put, with `{question}`.
        **placement: `device`, `dtype` (here bfloat16 by default), `batch_size`; see `Placement`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: If an option is unknown or out of range, or yes and no are no tokens of the model.
    """
    judge = _load(VlmYes, model, placement, template)
    for words in (("yes", "Yes"), ("no", "No")):
        token_ids(judge._vlm.tokenizer, words)
    return judge


def answer_probability(
    model: str = GENEVAL_2_HUB, *, template: str = "{question}", **placement: Any
) -> AnswerProbability:
    """Loads a judge of given answers, by default GenEval 2's own; arguments and errors as for `yes`."""
    return _load(VlmProbability, model, placement, template)


def answer(
    model: str = HUB, *, free: bool = False, template: str | None = None, longest: int = 16, **placement: Any
) -> Answerer:
    """Loads a judge that answers in words.

    Args:
        model: As for `yes`.
        free: Whether the model writes what it likes, token by token; else its answer is yes or no, from the
            probabilities of both, which is much quicker and never a sentence.
        template: How a question is put, with `{question}`; None: that of `yes`, or the bare question if `free`.
        longest: Most tokens of a free answer.
        **placement: As for `yes`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: As for `yes`.
    """
    if not free:
        return YesNoAnswers(yes(model, template=template or YES_TEMPLATE, **placement))
    if longest < 1:
        raise ValueError(f"longest of vlm is at least 1 token, got {longest}")

    def make(vlm: LocalVLM, place: Placement, source: str, template: str) -> VlmAnswer:
        return VlmAnswer(vlm, place, source, template, longest)

    return _load(make, model, placement, template or "{question}")


def _load(make: Callable[[LocalVLM, Placement, str, str], Value], model: str, placement: Any, template: str) -> Value:
    place = read_placement("vlm", {"dtype": "bfloat16", **placement})
    if place.revision is not None:
        raise ValueError("vlm takes no revision: point `model` at a local copy of the one you want")
    loaded = LocalVLM.load(model, dtype=getattr(torch, place.dtype))
    loaded.to(place.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return make(loaded, place, model, template)
