from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.rewards.functions.boxes import box_gaussian


def boxes(*corners: tuple[float, ...]) -> Tensor:
    return torch.tensor(corners, dtype=torch.float64)


def test_identical_boxes_get_all() -> None:
    both = box_gaussian(boxes((0, 0, 10, 20)), boxes((0, 0, 10, 20)))
    assert both.point.tolist() == [1.0] and both.coverage.tolist() == pytest.approx([1.0])


def test_gui_g2_by_hand() -> None:
    """Target 10 x 20 (deviations 5 and 10) at (5, 10); predicted 20 x 20 (10 and 10) at (10, 10)."""
    reward = box_gaussian(boxes((0, 0, 20, 20)), boxes((0, 0, 10, 20)))
    assert float(reward.point) == pytest.approx(math.exp(-0.5))
    pooled = (100 + 25) / 2
    distance = 25 / pooled / 8 + 0.5 * math.log(pooled / 50)
    assert float(reward.coverage) == pytest.approx(math.exp(-distance))


def test_the_point_ignores_the_predicted_size_and_coverage_does_not() -> None:
    target = boxes((0, 0, 10, 10), (0, 0, 10, 10))
    reward = box_gaussian(boxes((2, 2, 12, 12), (5, 5, 9, 9)), target)
    assert reward.point[0] == pytest.approx(float(reward.point[1]))
    assert reward.coverage[0] > reward.coverage[1]


def test_the_spread_widens_and_gradients_are_exact() -> None:
    near, far = (box_gaussian(boxes((4, 0, 14, 10)), boxes((0, 0, 10, 10)), spread=s) for s in (0.25, 1.0))
    assert float(near.point) < float(far.point)
    made = boxes((1, 2, 12, 9)).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: tuple(box_gaussian(b, boxes((0, 0, 10, 10)))), made)


@pytest.mark.parametrize("bad", [torch.zeros(1, 4), torch.zeros(1, 3), torch.tensor([[0.0, 5.0, 5.0, 0.0]])])
def test_what_is_no_box_is_refused(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="boxes are"):
        box_gaussian(bad, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
