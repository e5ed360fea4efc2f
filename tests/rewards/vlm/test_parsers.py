from __future__ import annotations

import math
from typing import Any

import pytest

from diffalign.rewards.transport import NoAnswer
from diffalign.rewards.vlm.parsers import choice, grade, number, yes


def tokens(**probabilities: float) -> dict[str, Any]:
    listed = [{"token": word, "logprob": math.log(p)} for word, p in probabilities.items()]
    return {"message": {"content": ""}, "logprobs": {"content": [{"top_logprobs": listed}]}}


def says(text: Any) -> dict[str, Any]:
    return {"message": {"content": text}, "finish_reason": "stop"}


def test_spellings_of_yes_are_summed() -> None:
    read = yes().read
    assert read(tokens(yes=0.25, no=0.25)) == pytest.approx(0.5)
    mixed = tokens(yes=0.2, Yes=0.1, no=0.1, maybe=0.6)
    mixed["logprobs"]["content"][0]["top_logprobs"].append({"token": " Yes", "logprob": math.log(0.3)})
    assert read(mixed) == pytest.approx(0.6 / 0.7)
    assert read(tokens(No=0.3)) == 0.0
    assert yes().request == {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}


def test_a_grade_is_the_mean_of_the_digits() -> None:
    even = {str(digit): 0.1 for digit in range(6)}
    assert grade().read(tokens(**even)) == pytest.approx(0.5)
    weights = [math.exp(z) for z in (0, 0, 0, 1, 2, 3)]
    share = {str(digit): weight / 100 for digit, weight in enumerate(weights)}
    assert grade().read(tokens(**share, x=0.01)) == pytest.approx(0.850416, abs=1e-6)
    assert grade(9).read(tokens(**{"9": 0.2})) == 1.0


@pytest.mark.parametrize("parser", [yes(), grade()])
@pytest.mark.parametrize(
    "answer",
    [
        tokens(perhaps=0.9),
        says("yes"),
        {"message": {}, "logprobs": None},
        {"message": {}, "logprobs": {"content": []}},
        {"message": {}, "logprobs": {"content": [{"top_logprobs": [{"token": "yes", "logprob": "high"}]}]}},
    ],
)
def test_no_probabilities_are_no_answer(parser: Any, answer: dict[str, Any]) -> None:
    with pytest.raises(NoAnswer, match="garbage") as caught:
        parser.read(answer)
    assert not caught.value.retry


def test_the_last_number_counts() -> None:
    parser = number(r"final score:\s*([\d.]+)", low=1, high=5)
    assert parser.read(says("Final Score: 2 at first. On reflection, final score: 4.5")) == 4.5
    assert parser.range == (1, 5)
    assert number().read(says("between -3 and 8.5")) == 8.5


@pytest.mark.parametrize("text", ["no idea", "Final Score: 9", "Final Score: ", "Final Score: 1.2.3", None, 4])
def test_a_text_without_a_sensible_number_is_no_answer(text: Any) -> None:
    with pytest.raises(NoAnswer, match="garbage"):
        number(r"final score:\s*([\d.]+)", low=1, high=5).read(says(text))


def test_the_last_option_counts() -> None:
    parser = choice({"image 1": 1.0, "image 2": 0.0, r"\btie\b": 0.5})
    assert parser.read(says("Image 1 is sharp, but Image 2 is better.")) == 0.0
    assert parser.read(says("a TIE")) == 0.5
    assert parser.range == (0.0, 1.0)
    with pytest.raises(NoAnswer):
        parser.read(says("both tied"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grade(0), "1 to 9, got 0"),
        (lambda: number("score"), "needs a group"),
        (lambda: number("("), "no regular expression"),
        (lambda: choice({}), "needs options"),
        (lambda: choice({"[": 1.0}), "no regular expression"),
    ],
)
def test_arguments_that_cannot_work_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
