"""Compared outside the tree with compute_dpg_bench.py (ELLA, 3c228f1): 476 images, totals and categories are equal."""

from __future__ import annotations

import random

import pytest

from diffalign.evaluation import dpg
from diffalign.evaluation.dpg import Question


def chain(*order: int) -> list[Question]:
    """Questions 1 <- 2 <- 3 in an order of the table."""
    parents = {1: (), 2: (1,), 3: (2,), 4: ()}
    return [Question(n, f"q{n}?", parents[n], "entity - whole" if n < 3 else "relation - spatial") for n in order]


def answers(*yes: int) -> dict[int, bool]:
    return {n: n in yes for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("order", "yes", "released", "mended"),
    [
        ((1, 2, 3), (1, 2, 3), 1, 1),
        ((1, 2, 3), (2, 3), 0, 0),  # 1 fails, so 2 fails, so 3 fails
        ((3, 2, 1), (2, 3), 1 / 3, 0),  # 3 is looked at before 2 has fallen
        ((1, 2, 3), (1, 3), 1 / 3, 1 / 3),
        ((1, 2, 3), (1, 2), 2 / 3, 2 / 3),
        ((1, 2, 3), (), 0, 0),
        ((1, 2, 3, 4), (4,), 1 / 4, 1 / 4),  # independent of the others
        ((2, 1, 3), (2, 3), 0, 0),  # 2 sees its parent's answer wherever it stands
        ((3, 1, 2), (1, 3), 1 / 3, 1 / 3),
        ((4, 3, 2, 1), (2, 3, 4), 2 / 4, 1 / 4),
        ((1,), (1,), 1, 1),
        ((4,), (1,), 0, 0),
    ],
)
def test_scores_of_known_answers(order, yes, released, mended):
    questions = chain(*order)
    assert dpg.image_score(answers(*yes), questions) == pytest.approx(released)
    assert dpg.image_score(answers(*yes), questions, strict=False) == pytest.approx(mended)


def test_a_further_yes_never_hurts_and_mended_scores_ignore_the_order():
    rng = random.Random(0)
    for _ in range(300):
        size = rng.randint(1, 7)
        parents = {n: tuple(p for p in range(1, n) if rng.random() < 0.3) for n in range(1, size + 1)}
        questions = [Question(n, "", parents[n], "x - y") for n in parents]
        given = {n: rng.random() < 0.6 for n in parents}
        score = dpg.image_score(given, questions)
        turned = rng.sample(questions, size)
        assert dpg.image_score(given, turned, strict=False) == dpg.image_score(given, questions, strict=False) == score
        assert dpg.image_score({**given, rng.randint(1, size): True}, questions) >= score
        assert dpg.image_score(given, turned) >= score  # a wrong order can only miss a failed parent


def test_category_means_use_the_last_image_before_dependence_and_mended_all_after():
    questions = chain(1, 2, 3)
    images = [answers(1, 2, 3), answers(2, 3)]
    assert dpg.category_values(images, questions) == {"entity - whole": [0, 1], "relation - spatial": [1]}
    mended = dpg.category_values(images, questions, strict=False)
    assert mended == {"entity - whole": [1, 0, 1, 0], "relation - spatial": [1, 0]}
    assert [dpg.first_level(c) for c in (*mended, "global")] == ["entity", "relation", "global"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("yes", True),
        ("Yes.", True),
        (" yes, it is", True),
        ("no", False),
        ("No, yes", False),
        ("yesterday", False),
        ("", False),
    ],
)
def test_what_counts_as_a_yes(word, expected):
    assert dpg.is_yes(word) is expected


def row(item: str, number: int, dependency: str = "0", category: str = "entity - whole (dog)") -> dict[str, str]:
    return dict(
        zip(dpg.COLUMNS, (item, f"prompt of {item}", str(number), dependency, category, f"q{number}?"), strict=True)
    )


def test_the_released_reading_skips_the_first_row_and_items_that_lack_a_parent_by_it():
    rows = [row("a", 1), row("a", 2, "1"), row("b", 1), row("b", 2, "1, 0"), row("b", 3, "1,2")]
    assert [item.name for item in dpg.read_items(rows)] == ["b"]
    items = dpg.read_items(rows, strict=False)
    assert [item.name for item in items] == ["a", "b"] and items[1].prompt == "prompt of b"
    assert [q.parents for q in items[1].questions] == [(), (1,), (1, 2)]
    assert items[0].questions[0].category == "entity - whole"
    kept = dpg.read_items([row("a", 1), row("a", 2)])  # nothing depends on the lost question: the item stays
    assert [q.number for q in kept[0].questions] == [2]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("a", 1), {**row("a", 2), "tuple": ""}], "row 2 of the DPG-Bench table lacks tuple"),
        ([row("a", 1), row("a", 2, "one")], "row 2: proposition_id and dependency must be whole numbers"),
        ([row("a", 1), row("b", 1), row("a", 2)], "item 'a' stands in two places"),
        ([row("a", 1), row("a", 1)], "has a question twice"),
        ([row("a", 1), row("a", 2, "7")], r"depend on \[7\]"),
    ],
)
def test_broken_tables_are_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        dpg.read_items(rows, strict=False)


def test_a_missing_answer_is_an_error():
    with pytest.raises(ValueError, match="no answer to question 3"):
        dpg.image_score({1: True, 2: True}, chain(1, 2, 3))
