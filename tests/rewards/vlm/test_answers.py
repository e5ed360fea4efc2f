from __future__ import annotations

import pytest

from diffalign.rewards.vlm.answers import NO, YES, grade_ids, token_ids


class Words:
    """A tokenizer of whole words; everything else falls into letters."""

    unk_token_id = 0

    def __init__(self, *words: str) -> None:
        self.known = {word: number for number, word in enumerate(words, 1)}

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [self.known[text]] if text in self.known else [0] * max(len(text), 2)

    def convert_tokens_to_ids(self, token: str) -> int:
        return {"5": 99}.get(token, 0)


def test_spellings_that_are_tokens_are_found_once_each() -> None:
    words = Words("Yes", " Yes", "no", "yes")
    assert token_ids(words, YES) == [4, 1, 2]
    assert token_ids(words, NO) == [3]
    assert token_ids(words, ("Yes", "Yes")) == [1]


def test_a_sentencepiece_token_is_looked_up_by_name() -> None:
    assert token_ids(Words(), ("5", " 5")) == [99]


def test_an_answer_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="none of .*'yes'.* is a single token"):
        token_ids(Words("maybe"), YES)


def test_grades_are_digits() -> None:
    words = Words(*"0123456789")
    assert grade_ids(words) == [[1], [2], [3], [4], [5], [6]]
    assert len(grade_ids(words, 9)) == 10
    for highest in (0, 10):
        with pytest.raises(ValueError, match=f"1 to 9, got {highest}"):
            grade_ids(words, highest)
