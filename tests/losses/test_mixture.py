from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.mixture import hedge, mixture_preference, responsibilities

D = torch.float64
DELTA = torch.tensor([[0.4, -1.2, 2.0], [0.0, 0.7, -0.3]], dtype=D)
LOGITS = torch.tensor([[0.1, 0.9, -0.5], [1.0, 0.0, 0.2]], dtype=D)


def test_value_by_hand() -> None:
    prior = torch.tensor([[0.25, 0.75]], dtype=D).log()
    delta = torch.tensor([[math.log(3), -math.log(4)]], dtype=D)  # sigmoid: 3/4 and 1/5
    assert mixture_preference(delta, prior).item() == pytest.approx(-math.log(0.25 * 0.75 + 0.75 * 0.2))
    assert mixture_preference(delta, prior[0]).item() == pytest.approx(-math.log(0.3375))
    assert mixture_preference(delta, prior + 5).item() == pytest.approx(-math.log(0.3375))  # logits are normalised
    assert responsibilities(delta, prior)[0].tolist() == pytest.approx([0.1875 / 0.3375, 0.15 / 0.3375])


def test_one_head_or_equal_heads_are_bradley_terry() -> None:
    one = mixture_preference(DELTA[:, :1], LOGITS[:, :1])
    same = mixture_preference(DELTA[:, :1].expand(-1, 3), LOGITS)
    expected = torch.nn.functional.softplus(-DELTA[:, 0])
    assert torch.allclose(one, expected, atol=1e-12) and torch.allclose(same, expected, atol=1e-12)


def test_both_orders_have_probability_one() -> None:
    total = torch.exp(-mixture_preference(DELTA, LOGITS)) + torch.exp(-mixture_preference(-DELTA, LOGITS))
    assert torch.allclose(total, torch.ones(2, dtype=D), atol=1e-12)


def test_the_mixture_is_below_the_mean_of_its_heads() -> None:
    mean = (LOGITS.softmax(1) * torch.nn.functional.softplus(-DELTA)).sum(1)
    assert (mixture_preference(DELTA, LOGITS) < mean).all()


def test_gradient_is_weighted_by_responsibility_and_reaches_the_router() -> None:
    delta, logits = DELTA.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    g_delta, g_logits = torch.autograd.grad(mixture_preference(delta, logits).sum(), (delta, logits))
    share = responsibilities(delta, logits)
    assert torch.allclose(g_delta, -share * torch.sigmoid(-DELTA), atol=1e-12)
    assert torch.allclose(g_logits, LOGITS.softmax(1) - share, atol=1e-12)
    assert not share.requires_grad and torch.allclose(share.sum(1), torch.ones(2, dtype=D))
    assert torch.autograd.gradcheck(mixture_preference, (delta, logits))


def test_far_out_and_impossible_heads_stay_finite() -> None:
    delta = torch.tensor([[-1e4, 50.0], [1e4, -50.0]], dtype=torch.bfloat16, requires_grad=True)
    logits = torch.tensor([[0.0, -math.inf], [-1e4, 1e4]], requires_grad=True)
    loss = mixture_preference(delta, logits)
    grads = torch.autograd.grad(loss.sum(), (delta, logits))
    assert loss.dtype == torch.float32 and torch.isfinite(loss).all() and all(torch.isfinite(g).all() for g in grads)


def test_hedge_by_hand() -> None:
    delta = torch.tensor([[math.log(3), -math.log(4)]], dtype=D)
    weights = hedge(torch.tensor([0.2, 0.8], dtype=D), delta)
    assert weights.tolist() == pytest.approx([0.15 / 0.31, 0.16 / 0.31])
    slow = hedge(torch.tensor([1.0, 1.0], dtype=D), delta, rate=0.5)
    assert (slow[0] / slow[1]).item() == pytest.approx(math.sqrt(0.75 / 0.2))
    twice = hedge(hedge(torch.ones(2, dtype=D), delta), delta)
    assert torch.allclose(twice, hedge(torch.ones(2, dtype=D), delta.repeat(2, 1)), atol=1e-12)
    assert hedge(torch.tensor([0.0, 1.0]), delta.float()).tolist() == [0.0, 1.0]


def test_hedge_favours_the_best_head_and_has_no_gradient() -> None:
    delta = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 2.0, -1.0])
    weights = hedge(torch.ones(3, requires_grad=True), delta.requires_grad_())
    assert weights.argmax() == 1 and weights[1] > 0.99 and not weights.requires_grad


def test_heads_may_be_permuted() -> None:
    order = [2, 0, 1]
    assert torch.allclose(mixture_preference(DELTA, LOGITS), mixture_preference(DELTA[:, order], LOGITS[:, order]))


def test_bad_input_is_refused() -> None:
    for delta, prior in ((torch.zeros(3), torch.zeros(3)), (torch.zeros(2, 3), torch.zeros(2))):
        with pytest.raises(ValueError, match="prior of shape"):
            mixture_preference(delta, prior)
    with pytest.raises(ValueError, match="prior of shape"):
        mixture_preference(torch.zeros(2, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="delta must be of a floating"):
        mixture_preference(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="rate"):
        hedge(torch.ones(3), torch.zeros(2, 3), rate=0)
    with pytest.raises(ValueError, match="weights"):
        hedge(torch.tensor([-1.0, 2.0, 2.0]), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="largest_weight"):
        hedge(torch.zeros(3), torch.zeros(2, 3))
