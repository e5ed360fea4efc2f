"""Compared outside the tree with calc_counting_acc.py (HRS_benchmark, 4df908c): 2,000 sets of images are equal."""

from __future__ import annotations

import pytest

from diffalign.evaluation.hrs_counting import Counts, counting, precision_recall
from diffalign.evaluation.judges import Detection


def image(**labels: int) -> list[Detection]:
    return [Detection(name, 0.9, (0.0, 0.0, 1.0, 1.0)) for name, number in labels.items() for _ in range(number)]


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({"dog": 3}, {"dog": 3}, (3, 0, 0)),
        ({"dog": 5}, {"dog": 3}, (3, 2, 0)),
        ({"dog": 1}, {"dog": 3}, (1, 0, 2)),
        ({}, {"dog": 3}, (0, 0, 3)),
        ({"cat": 4}, {"dog": 3}, (0, 0, 3)),  # other classes do not matter
        ({"dog": 1, "cat": 3}, {"dog": 2, "cat": 2}, (3, 1, 1)),
        ({"Dog": 2}, {"dog": 2}, (2, 0, 0)),  # labels in lower case
        ({"dog": 2, "cat": 2}, {"dog": 2, "cat": 2}, (4, 0, 0)),
        ({"dog": 4}, {"dog": 2, "cat": 2}, (2, 2, 2)),  # one class does not stand in for another
        ({"dog": 9, "cat": 1}, {"dog": 1, "cat": 1}, (2, 8, 0)),
        ({"cup": 1}, {}, (0, 0, 0)),  # nothing is wanted
        ({"teddy bear": 1}, {"bear": 1}, (0, 0, 1)),  # labels are compared whole
    ],
)
def test_counts_of_known_images(found, wanted, expected):
    assert counting(image(**found), wanted) == expected


def test_precision_and_recall_of_summed_counts():
    counts = [
        counting(image(dog=5), {"dog": 3}),
        counting(image(dog=1, cat=3), {"dog": 2, "cat": 2}),
        counting([], {"cat": 4}),
    ]
    table = precision_recall(counts)
    assert table["precision"] == pytest.approx(0.6666666666666666)  # released
    assert table["recall"] == pytest.approx(0.5454545454545454)  # released
    assert precision_recall([Counts(3, 2, 0)]) == pytest.approx({"precision": 0.6, "recall": 1, "f1": 0.75})
    assert precision_recall([Counts(0, 0, 4)]) == {"precision": 0, "recall": 0, "f1": 0}


def test_a_confident_wrong_box_can_only_hurt():
    wanted = {"dog": 2, "cat": 1}
    exact = image(dog=2, cat=1)
    score = [precision_recall([counting(exact + extra, wanted)])["f1"] for extra in ([], image(dog=1), image(cup=1))]
    assert score[0] == 1 and score[1] < 1 and score[2] == 1
    doubtful = [Detection("dog", 0.5, (0.0, 0.0, 1.0, 1.0))]
    assert counting(exact + doubtful, wanted) == (3, 0, 0)
