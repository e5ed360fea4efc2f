from __future__ import annotations

import pytest

from diffalign.evaluation import boxes

A = (0.0, 0.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("other", "expected"),
    [(A, 1), ((50, 0, 150, 100), 1 / 3), ((100, 0, 200, 100), 0), ((25, 25, 75, 75), 0.25), ((0, 0, 0, 0), 0)],
)
def test_intersection_over_union_of_known_boxes(other, expected):
    assert boxes.iou(A, other) == pytest.approx(expected, abs=1e-12)
    assert boxes.iou(other, A) == boxes.iou(A, other)


def test_boxes_without_area_share_nothing():
    point = (5.0, 5.0, 5.0, 5.0)
    assert boxes.iou(point, point) == 0 and boxes.area((9.0, 0.0, 1.0, 5.0)) == 0


def test_centre_inclusive_and_scaled():
    assert boxes.centre((0, 10, 20, 50)) == (10, 30)
    assert boxes.area(boxes.inclusive((0, 0, 9, 9))) == 100
    assert boxes.scaled((1, 2, 3, 4), 10, 100) == (10, 200, 30, 400)
