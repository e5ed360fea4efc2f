"""Parsers: the request to a chat server, and the number in its answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diffalign.rewards.transport import NoAnswer

TOP = 20
"""Most alternatives that the API lists for a token."""


class Parser(NamedTuple):
    """How one kind of answer is requested and read.

    Attributes:
        name: For the name of the reward.
        request: What the request holds beside the messages.
        read: `choices[0]` -> score; raises `NoAnswer` where there is none.
        range: Nominal (low, high) of the score.
    """

    name: str
    request: Mapping[str, Any]
    read: Callable[[Mapping[str, Any]], float]
    range: tuple[float, float]


def alternatives(choice: Mapping[str, Any]) -> dict[str, float]:
    """Probability of each first token without blanks and case, spellings summed."""
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        found: dict[str, float] = {}
        for entry in listed:
            word = str(entry["token"]).strip().casefold()
            found[word] = found.get(word, 0.0) + math.exp(float(entry["logprob"]))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise NoAnswer("garbage", "no top_logprobs (does the server list them?)", retry=False) from error
    return found


def yes() -> Parser:
    """P(yes) / (P(yes) + P(no)) of the first token, spellings summed."""

    def read(choice: Mapping[str, Any]) -> float:
        found = alternatives(choice)
        total = found.get("yes", 0.0) + found.get("no", 0.0)
        if not total > 0:
            raise NoAnswer("garbage", f"neither yes nor no among {sorted(found)[:5]}", retry=False)
        return found.get("yes", 0.0) / total

    return Parser("yes", {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP}, read, (0.0, 1.0))


def grade(highest: int = 5) -> Parser:
    """Mean of the digits 0 to highest under the first token, divided by the highest.

    Args:
        highest: 1 to 9.

    Raises:
        ValueError: If it is not.
    """
    if not 1 <= highest <= 9:
        raise ValueError(f"the highest grade is 1 to 9, got {highest}: a grade has to be one token")

    def read(choice: Mapping[str, Any]) -> float:
        found = alternatives(choice)
        p = [found.get(str(digit), 0.0) for digit in range(highest + 1)]
        if not sum(p) > 0:
            raise NoAnswer("garbage", f"no grade among {sorted(found)[:5]}", retry=False)
        return sum(digit * each for digit, each in enumerate(p)) / sum(p) / highest

    return Parser("grade", {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP}, read, (0.0, 1.0))


def number(pattern: str = r"(-?\d+(?:\.\d+)?)", low: float = 0.0, high: float = 10.0, max_tokens: int = 512) -> Parser:
    """The number that a regular expression finds in the text.

    Args:
        pattern: With one group around the number; the last match counts, the verdict after the reasons.
        low: Least sensible value; anything below is no answer.
        high: Largest.
        max_tokens: Length of the answer.

    Raises:
        ValueError: If the pattern is no regular expression with a group.
    """
    expression = _compiled(pattern)
    if expression.groups < 1:
        raise ValueError(f"the pattern needs a group around the number, got {pattern!r}")

    def read(choice: Mapping[str, Any]) -> float:
        matches = list(expression.finditer(answer_text(choice)))
        try:
            value = float(matches[-1].group(1))
        except (IndexError, TypeError, ValueError) as error:
            raise NoAnswer("garbage", f"no number ({choice.get('finish_reason')})", retry=False) from error
        if not low <= value <= high:
            raise NoAnswer("garbage", f"{value:g} is outside {low:g} to {high:g}", retry=False)
        return value

    return Parser("number", {"max_tokens": max_tokens}, read, (low, high))


def choice(options: Mapping[str, float], max_tokens: int = 512) -> Parser:
    """The value of the option that the text holds.

    Args:
        options: Regular expression -> value; the one whose match ends last counts, case ignored.
        max_tokens: Length of the answer.

    Raises:
        ValueError: If there are no options or one is no regular expression.
    """
    if not options:
        raise ValueError("choice needs options: {regular expression: value}")
    compiled = {_compiled(pattern): float(value) for pattern, value in options.items()}

    def read(answer: Mapping[str, Any]) -> float:
        text = answer_text(answer)
        ends = [(match.end(), value) for pattern, value in compiled.items() for match in pattern.finditer(text)]
        if not ends:
            raise NoAnswer("garbage", "none of the options", retry=False)
        return max(ends)[1]

    return Parser("choice", {"max_tokens": max_tokens}, read, (min(compiled.values()), max(compiled.values())))


def _compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression, case ignored."""
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


def answer_text(choice: Mapping[str, Any]) -> str:
    """The text of an answer."""
    text = choice["message"].get("content")
    if not isinstance(text, str):
        raise NoAnswer("garbage", "the answer has no text")
    return text


PARSERS: dict[str, Callable[..., Parser]] = {"yes": yes, "grade": grade, "number": number, "choice": choice}
