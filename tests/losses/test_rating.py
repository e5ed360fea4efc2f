from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.rating import matched_boundaries, rating_logits, rating_loss, unit_range

D = torch.float64
EDGES = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=D)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def test_the_largest_logit_is_that_of_the_interval() -> None:
    r = torch.linspace(0.001, 0.999, 97, dtype=D)
    inside = torch.bucketize(r, EDGES[1:-1])
    assert torch.equal(rating_logits(r, EDGES).argmax(1), inside)


def test_logits_by_hand() -> None:
    assert rating_logits(t(0.5), EDGES)[0].tolist() == pytest.approx([-4.5, 1.8, -3.0])
    assert rating_logits(t(0.5), EDGES, k=10.0)[0].tolist() == pytest.approx([-1.5, 0.6, -1.0])


def test_loss_is_cross_entropy_of_the_label() -> None:
    total = math.exp(-4.5) + math.exp(1.8) + math.exp(-3.0)
    loss = rating_loss(t(0.5, 0.5), torch.tensor([1, 2]), EDGES)
    assert loss.tolist() == pytest.approx([math.log(total) - 1.8, math.log(total) + 3.0])


def test_two_classes_are_logistic_regression() -> None:
    r, edges = t(0.1, 0.8), t(0.0, 0.3, 1.0)
    loss = rating_loss(r, torch.tensor([1, 1]), edges, k=7.0)
    assert torch.allclose(loss, torch.nn.functional.softplus(-7.0 * (r - 0.3)), atol=1e-12)


def test_unit_range() -> None:
    assert unit_range(t(3.0, -1.0, 1.0)).tolist() == pytest.approx([1.0, 0.0, 0.5])
    assert unit_range(t(0.1, 0.3, 0.2)).tolist() == pytest.approx([0.0, 1.0, 0.5])
    assert unit_range(torch.tensor([2, 2]).half()).tolist() == [0.0, 0.0]
    x = t(0.4, -0.3, 1.1, 0.2).requires_grad_()
    assert torch.autograd.gradcheck(unit_range, x)
    (g,) = torch.autograd.grad(unit_range(torch.full((3,), 2.0, requires_grad=True)).sum(), x, allow_unused=True)
    assert g is None
    same = torch.full((3,), 2.0, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(unit_range(same).sum(), same)[0]).all()
    loss = rating_loss(unit_range(x), torch.tensor([0, 1, 2, 1]), EDGES).sum()
    (g,) = torch.autograd.grad(loss, x)
    assert g.sum().item() == pytest.approx(0, abs=1e-12) and (g * x).sum().item() == pytest.approx(0, abs=1e-12)


def test_boundaries_give_each_class_its_count() -> None:
    r = t(0.9, 0.1, 0.0, 0.35, 1.0, 0.5)
    edges = matched_boundaries(r.requires_grad_(), torch.tensor([2, 1, 3]))
    assert edges.tolist() == pytest.approx([0.0, 0.225, 0.425, 1.0]) and not edges.requires_grad
    assert torch.bucketize(r.detach(), edges[1:-1]).bincount().tolist() == [2, 1, 3]
    assert matched_boundaries(r, torch.tensor([5, 1])).tolist() == pytest.approx([0.0, 0.95, 1.0])
    assert matched_boundaries(r, torch.tensor([0, 6, 0])).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_boundaries_have_no_gradient_and_scores_do() -> None:
    r, edges = t(0.15, 0.6).requires_grad_(), EDGES.clone().requires_grad_()
    labels = torch.tensor([2, 0])
    assert torch.autograd.gradcheck(lambda x: rating_loss(x, labels, EDGES), r)
    g = torch.autograd.grad(rating_loss(r, labels, edges).sum(), (r, edges), allow_unused=True)
    assert g[1] is None and g[0][0] < 0 < g[0][1]  # the star is higher than the score says, and lower
    assert rating_loss(r.half(), labels, edges).dtype in (torch.float32, D)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        matched_boundaries(t(0.1, 0.2), torch.tensor([2]))
    with pytest.raises(ValueError, match="sum to 2"):
        matched_boundaries(t(0.1, 0.2), torch.tensor([2, 1]))
    with pytest.raises(ValueError, match="three or more"):
        rating_logits(t(0.1), t(0.0, 1.0))
    with pytest.raises(ValueError, match="k must be positive"):
        rating_logits(t(0.1), EDGES, k=0)
    with pytest.raises(ValueError, match="integers"):
        rating_loss(t(0.1), t(1.0), EDGES)
    with pytest.raises(ValueError, match="integers"):
        rating_loss(t(0.1), torch.tensor([1, 0]), EDGES)
    with pytest.raises(ValueError, match="B >= 1"):
        unit_range(torch.zeros(0))
    with pytest.raises(ValueError, match="B >= 1"):
        unit_range(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="floating"):
        unit_range(torch.tensor([1, 2]))
