"""Tokens of an answer, found by their spelling and never by number, so that any tokenizer works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

YES = ("yes", "Yes", " yes", " Yes", "YES")
NO = ("no", "No", " no", " No", "NO")


def token_ids(tokenizer: Any, spellings: Sequence[str]) -> list[int]:
    """Ids of those spellings that are one token, in order, each once.

    Tokenizers that put a blank before every word (sentencepiece) split a bare spelling in two; their token of the bare
    spelling is looked up as well.

    Args:
        tokenizer: A tokenizer of transformers.
        spellings: Spellings of one answer.

    Raises:
        ValueError: If none is a single token.
    """
    found: list[int] = []
    for spelling in spellings:
        ids = tokenizer.encode(spelling, add_special_tokens=False)
        if len(ids) != 1:
            ids = [tokenizer.convert_tokens_to_ids(spelling)]
        if ids[0] is not None and ids[0] != tokenizer.unk_token_id and ids[0] not in found:
            found.append(int(ids[0]))
    if not found:
        raise ValueError(
            f"none of {list(spellings)} is a single token of this tokenizer; choose answers that are, or another model"
        )
    return found


def grade_ids(tokenizer: Any, highest: int = 5) -> list[list[int]]:
    """Token ids of the grades "0" to "highest", bare or after a blank.

    Args:
        tokenizer: A tokenizer of transformers.
        highest: Highest grade, 1 to 9: a grade is one digit.

    Raises:
        ValueError: If the grade is out of range or a digit is no token.
    """
    if not 1 <= highest <= 9:
        raise ValueError(f"the highest grade is 1 to 9, got {highest}: a grade has to be one token")
    return [token_ids(tokenizer, (str(grade), f" {grade}")) for grade in range(highest + 1)]
