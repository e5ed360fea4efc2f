from __future__ import annotations

import pytest

from diffalign.rewards.functions.text import edit_distance, quoted_text, text_score


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ('a sign that says "Open Now"', "Open Now"),
        ("a mug with “Good Day” on it", "Good Day"),
        ("a shop called 'Joe's'", "Joe's"),
        ("the dog's bowl", None),
        ("die Aufschrift «Café»", "Café"),
        ('"A" beside "B"', "A B"),
        ("no text", None),
        ("the dogs' and cats' bowls", None),
    ],
)
def test_quoted_text_is_found(prompt: str, text: str | None) -> None:
    assert quoted_text(prompt) == text


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("flaw", "lawn", 2),
        ("same", "same", 0),
        ("ab", "ba", 2),
    ],
)
def test_edit_distances_that_are_known(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == distance == edit_distance(b, a)


def test_scores_by_hand() -> None:
    assert text_score("New York", "newyork") == 1.0
    assert text_score("open", "opem") == 0.75
    assert text_score("open", "the door is open") == 1.0
    assert text_score("open", "opened", contained=False) == 0.5
    assert text_score("ab", "wholly different", contained=False) == 0.0
    assert text_score("open", "") == 0.0
    with pytest.raises(ValueError, match="blank"):
        text_score("  ", "x")
