"""A vision-language model behind an OpenAI-compatible server as a reward: vLLM, SGLang, Ollama, a hosted model.

What the server does not answer is NaN and counted; what no retry can mend (a wrong key, address or model) is an error.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.bodies import to_png
from diffalign.rewards.client_options import SECRETS, check_options, refuse_unknown
from diffalign.rewards.transport import NoAnswer, together
from diffalign.rewards.vlm import chat
from diffalign.rewards.vlm.logit import FIGURE_QUESTION, check_question, fill
from diffalign.rewards.vlm.parsers import PARSERS, Parser

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def png_url(image: Tensor) -> str:
    """An image `(3, H, W)` in [0, 1] as a PNG data URL, 8 bits."""
    return f"data:image/png;base64,{to_png(image)}"


def refuse(unknown: Mapping[str, object], known: Sequence[str]) -> None:
    """Raises a ValueError on arguments that do not exist; an address or a secret among them is never repeated."""
    for name in unknown:
        if ("url" in name or "endpoint" in name or "base" in name) and not SECRETS.search(name):
            raise ValueError(
                f"{name} is not set here: put the server's address into the environment variable {chat.URL_ENV} (or "
                "name another one with url_env)"
            )
    refuse_unknown(unknown, known, chat.KEY_ENV)


class ChatClient:
    """Many questions to a server at once, each within its deadline, with a count of those that came to nothing."""

    def __init__(
        self,
        model: str,
        *,
        url_env: str = chat.URL_ENV,
        key_env: str = chat.KEY_ENV,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 1.0,
        **unknown: object,
    ) -> None:
        """Says where and how to ask.

        Args:
            model: The model's name on the server.
            url_env: Environment variable with the server's address, such as `http://localhost:8000/v1`.
            key_env: Environment variable with the key; unset: none is sent.
            concurrency: Most questions at once.
            timeout: Seconds for one attempt in all.
            retries: Further attempts.
            backoff: Seconds before the second attempt; doubles each time.
            **unknown: Nothing else; a key or an address here is refused.

        Raises:
            ValueError: If an argument is unknown, is a secret, or is outside its range.
        """
        refuse(unknown, [name for name in inspect.signature(ChatClient).parameters if name != "unknown"])
        check_options(
            {"url_env": url_env, "key_env": key_env}, timeout, concurrency=concurrency, retries=retries, backoff=backoff
        )
        self.model = model
        self.failures: Counter[str] = Counter()
        self._concurrency = concurrency
        self._options: dict[str, Any] = {
            "url_env": url_env, "key_env": key_env, "timeout": timeout, "retries": retries, "backoff": backoff,
        }  # fmt: skip

    def ask(
        self, images: Sequence[Sequence[Tensor]], questions: Sequence[str], parser: Parser, who: str
    ) -> list[float]:
        """Asks every question about its images `(3, H, W)`; NaN where there is no answer."""
        return self.answers(images, questions, parser.request, [parser.read] * len(questions), float("nan"), who)

    def answers(
        self,
        images: Sequence[Sequence[Tensor]],
        questions: Sequence[str],
        request: Mapping[str, Any],
        reads: Sequence[Callable[[Mapping[str, Any]], Answer]],
        missing: Answer,
        who: str,
    ) -> list[Answer]:
        """Asks every question about its images `(3, H, W)`, and reads each answer.

        Args:
            images: For each question the images that go with it.
            questions: The questions.
            request: What a request holds beside model and messages.
            reads: For each question `choices[0]` of its answer -> value; raises `NoAnswer` where there is none.
            missing: The value where there is no answer.
            who: Name in the log.
        """
        chat.endpoint(self._options["url_env"])
        failed: Counter[str] = Counter()

        def one(shown: Sequence[Tensor], question: str, read: Callable[[Mapping[str, Any]], Answer]) -> Answer:
            return read(chat.complete(self._payload(shown, question, request), **self._options))

        asks = [partial(one, *each) for each in zip(images, questions, reads, strict=True)]
        answers: list[Answer] = []
        for found in together(asks, self._concurrency):
            if isinstance(found, NoAnswer):
                failed[found.cause] += 1
                logger.debug("%s: %s", who, found)
            answers.append(missing if isinstance(found, NoAnswer) else found)
        if failed:
            self.failures += failed
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(failed.items()))
            logger.warning("%s could not score %d of %d: %s", who, failed.total(), len(answers), causes)
        return answers

    def _payload(self, shown: Sequence[Tensor], question: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Body of one request."""
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": png_url(image)}} for image in shown]
        content.append({"type": "text", "text": question})
        turn = {"role": "user", "content": content}
        return {"model": self.model, "messages": [turn], "temperature": 0, **request}


def make_parser(parser: str | Parser, options: Mapping[str, Any] | None = None) -> Parser:
    """A parser by name and its arguments.

    Raises:
        ValueError: If the name is unknown or does not take the arguments.
    """
    if isinstance(parser, Parser):
        return parser
    if parser not in PARSERS:
        raise ValueError(f"parser {parser!r} is unknown; valid: {', '.join(PARSERS)}")
    factory: Callable[..., Parser] = PARSERS[parser]
    try:
        inspect.signature(factory).bind(**(options or {}))
    except TypeError as error:
        raise ValueError(f"parser {parser!r} does not take {dict(options or {})}: {error}") from error
    return factory(**(options or {}))


class RemoteVLM(Reward):
    """One question per image to a server."""

    needs = frozenset({"prompt"})
    environment = (chat.URL_ENV,)

    def __init__(
        self,
        model: str,
        *,
        template: str = FIGURE_QUESTION,
        parser: str | Parser = "yes",
        parser_options: Mapping[str, Any] | None = None,
        name: str | None = None,
        **client: Any,
    ) -> None:
        """Says what to ask.

        Args:
            model: The model's name on the server.
            template: Question with `{prompt}`.
            parser: `yes`, `grade`, `number` or `choice`; see `diffalign.rewards.vlm.parsers`.
            parser_options: Its arguments.
            name: Name in logs; default `remote_<parser>_<model>`.
            **client: `url_env`, `key_env`, `concurrency`, `timeout`, `retries`, `backoff`; see `ChatClient`.

        Raises:
            ValueError: If an argument is unknown, is a secret, or is outside its range.
        """
        check_question(template, 1)
        self._client = ChatClient(model, **client)
        self._parser = make_parser(parser, parser_options)
        self._template = template
        self.range = self._parser.range
        self.name = name or f"remote_{self._parser.name}_{model.rsplit('/', 1)[-1].lower()}"

    @property
    def failures(self) -> Counter[str]:
        """How many images were not scored so far, by cause."""
        return self._client.failures

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)` in [0, 1]; NaN where the server gave no answer."""
        questions = [fill(self._template, prompt=prompt) for prompt in prompts]
        answers = self._client.ask([[image] for image in images], questions, self._parser, self.name)
        return torch.tensor(answers, dtype=torch.float32, device=images.device)

    def self_test(self) -> None:
        """Asks the server about one grey image.

        Raises:
            ValueError: If it does not answer.
        """
        before = self.failures.total()
        self(torch.full((1, 3, 64, 64), 0.5), ["a grey square"], [{}])
        if self.failures.total() > before:
            raise ValueError(f"{self.name}: the server gave no usable answer ({dict(self.failures)})")


class RemoteJudge:
    """Pairs judged by a server: the probability that the first image is the better one."""

    def __init__(self, model: str, *, template: str, parser: Parser, name: str | None = None, **client: Any) -> None:
        """Says what to ask.

        Args:
            model: The model's name on the server.
            template: Question about two images, with `{prompt}`.
            parser: Whose values are in [0, 1], 1 for the first image.
            name: Name in logs.
            **client: See `ChatClient`.

        Raises:
            ValueError: If an argument is unknown, is a secret, or is outside its range.
        """
        check_question(template, 1)
        self.name = name or f"remote_pair_{model.rsplit('/', 1)[-1].lower()}"
        self.client = ChatClient(model, **client)
        self._template, self._parser = template, parser

    def compare(
        self, images_a: Tensor, images_b: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]
    ) -> Tensor:
        """P(first better), `(P,)`, NaN without an answer, of pairs `(P, 3, H, W)`."""
        shown = [[a, b] for a, b in zip(images_a, images_b, strict=True)]
        answers = self.client.ask(shown, [fill(self._template, prompt=p) for p in prompts], self._parser, self.name)
        return torch.tensor(answers, dtype=torch.float32, device=images_a.device)
