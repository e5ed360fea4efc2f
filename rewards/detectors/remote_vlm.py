"""A vision-language model behind an OpenAI-compatible server as a judge that answers questions.

Address and key come from environment variables (see `diffalign.rewards.vlm.chat`). A question without an answer is NaN,
or an empty text; it is counted and logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from diffalign.evaluation.judges import Answerer, AnswerProbability, YesProbability
from diffalign.rewards.detectors._grouping import regroup
from diffalign.rewards.detectors._yes_no import YesNoAnswers
from diffalign.rewards.detectors.vlm import YES_TEMPLATE
from diffalign.rewards.vlm import parsers
from diffalign.rewards.vlm.logit import short_name
from diffalign.rewards.vlm.remote import ChatClient

FIRST_TOKEN = {"max_tokens": 1, "logprobs": True, "top_logprobs": parsers.TOP}
Choice = Mapping[str, Any]
Answer = TypeVar("Answer")


class RemoteVlm:
    """The questions of many images to a server, many at once."""

    def __init__(self, model: str, template: str, client: Mapping[str, Any]) -> None:
        """Says where and how to ask; see `yes`."""
        if "{question}" not in template:
            raise ValueError(f"the template of remote_vlm needs {{question}}, got {template!r}")
        self._client, self._template = ChatClient(model, **client), template
        self.name = f"remote_{short_name(model)}"

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result; a server does not tell the revision of its weights."""
        return {"name": self.name, "model": self._client.model, "revision": "", "template": self._template}

    def ask(
        self,
        images: Tensor,
        questions: Sequence[Sequence[str]],
        request: Mapping[str, Any],
        reads: Sequence[Callable[[Choice], Answer]],
        missing: Answer,
    ) -> list[list[Answer]]:
        """Asks all questions of all images; `reads` and `missing` as for `ChatClient.answers`."""
        shown = [[image] for image, some in zip(images, questions, strict=True) for _ in some]
        texts = [self._template.replace("{question}", text) for some in questions for text in some]
        return regroup(self._client.answers(shown, texts, request, reads, missing, self.name), questions)


class RemoteYes(RemoteVlm):
    """P(yes) against P(no), all spellings."""

    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[float]]:
        """See `diffalign.evaluation.judges.YesProbability`."""
        parser = parsers.yes()
        reads = [parser.read] * sum(map(len, questions))
        return self.ask(images, questions, parser.request, reads, float("nan"))


class RemoteProbability(RemoteVlm):
    """Probability of given answers among the likeliest first tokens that the server lists."""

    def __call__(
        self, images: Tensor, questions: Sequence[Sequence[str]], answers: Sequence[Sequence[Sequence[str]]]
    ) -> list[list[float]]:
        """See `diffalign.evaluation.judges.AnswerProbability`; a spelling counts where it is a token of its own."""
        reads = [_mass_of(spellings) for wanted in answers for spellings in wanted]
        return self.ask(images, questions, FIRST_TOKEN, reads, float("nan"))


class RemoteAnswer(RemoteVlm):
    """Answers in words."""

    def __init__(self, model: str, template: str, client: Mapping[str, Any], longest: int) -> None:
        """Says where and how to ask; an answer ends after `longest` tokens."""
        super().__init__(model, template, client)
        self._longest = longest

    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """See `diffalign.evaluation.judges.Answerer`."""
        reads = [_words] * sum(map(len, questions))
        return self.ask(images, questions, {"max_tokens": self._longest}, reads, "")


def yes(model: str, *, template: str = YES_TEMPLATE, **client: Any) -> YesProbability:
    """A judge of yes-or-no questions.

    Args:
        model: The model's name on the server.
        template: How a question is put, with `{question}`.
        **client: `url_env`, `key_env`, `concurrency`, `timeout`, `retries`, `backoff`; see `ChatClient`.

    Raises:
        ValueError: If an argument is unknown, is a secret, or is outside its range.
    """
    return RemoteYes(model, template, client)


def answer_probability(model: str, *, template: str = "{question}", **client: Any) -> AnswerProbability:
    """A judge of given answers; arguments and errors as for `yes`."""
    return RemoteProbability(model, template, client)


def answer(
    model: str, *, free: bool = False, template: str | None = None, longest: int = 16, **client: Any
) -> Answerer:
    """A judge that answers in words.

    Args:
        model: The model's name on the server.
        free: Whether the model writes what it likes; else its answer is yes or no, from the probabilities of both.
        template: How a question is put, with `{question}`; None: that of `yes`, or the bare question if `free`.
        longest: Most tokens of a free answer.
        **client: As for `yes`.

    Raises:
        ValueError: As for `yes`.
    """
    if not free:
        return YesNoAnswers(yes(model, template=template or YES_TEMPLATE, **client))
    return RemoteAnswer(model, template or "{question}", client, longest)


def _mass_of(spellings: Sequence[str]) -> Callable[[Choice], float]:
    """Reads the probability of some spellings; blanks around them and case do not count."""
    wanted = {spelling.strip().casefold() for spelling in spellings}
    return lambda choice: sum(p for word, p in parsers.alternatives(choice).items() if word in wanted)


def _words(choice: Choice) -> str:
    return parsers.answer_text(choice).strip()
