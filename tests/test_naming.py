"""Hints for unknown names."""

from __future__ import annotations

import pytest

from diffalign.naming import nearest, unknown


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("jpgg", "; did you mean `jpeg`?"),
        ("JPEG", "; did you mean `jpeg`?"),
        ("zzz", ""),
        ("shapse", "; did you mean `Shapes`?"),
    ],
)
def test_a_close_word_is_suggested_in_its_own_spelling(word: str, hint: str) -> None:
    assert nearest(word, ["jpeg", "Shapes"]) == hint


def test_several_suggestions_are_joined_the_best_first() -> None:
    assert nearest("ppoo", ["grpo", "ppo", "ppo2"], count=2) == "; did you mean `ppo` or `ppo2`?"


def test_no_valid_words_give_no_hint() -> None:
    assert nearest("a", []) == ""


def test_the_error_lists_everything_sorted() -> None:
    assert (
        str(unknown("rule", "sumo", ["sum", "mean"])) == "unknown rule `sumo`; did you mean `sum`? (valid: mean, sum)"
    )
