from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import discriminative as D

F64 = torch.float64
GOOD = torch.tensor([[True, False, True, False]])
U = torch.tensor([[-1.0, -2.0, -0.5, -1.5]], dtype=F64)


def gradient(scores: Tensor, positive: Tensor, **kwargs: object) -> Tensor:
    scores = scores.detach().clone().requires_grad_()
    return torch.autograd.grad(D.discriminative(scores, positive, **kwargs).sum(), scores)[0]


def test_by_hand() -> None:
    rivals = 2 * math.log(math.exp(-1.0) + math.exp(-0.75))
    assert D.discriminative(U, GOOD, tau=2.0).item() == pytest.approx(0.75 + rivals)
    weight = torch.tensor([[3.0, 7.0, 1.0, 7.0]], dtype=F64)
    assert D.discriminative(U, GOOD, tau=2.0, weight=weight).item() == pytest.approx(0.875 + rivals)
    assert torch.allclose(
        D.discriminative(U, GOOD, tau=2.0, weight=weight / 10).exp(),
        torch.tensor([[1.0]], dtype=F64) * math.exp(0.875 + rivals),
    )
    plain = 10 * math.log(math.exp(-0.2) + math.exp(-0.15))
    assert D.discriminative(U, GOOD).item() == pytest.approx(0.75 + plain)


def test_weights_by_hand() -> None:
    quality = torch.tensor([[0.1, 0.9, 0.4, 0.2]], dtype=F64)
    share = 1 / (1 + math.exp(3.0))
    assert D.positive_weights(quality, GOOD)[0].tolist() == pytest.approx([share, 0.0, 1 - share, 0.0])
    flat = D.positive_weights(quality, GOOD, lam=1e9)
    assert torch.allclose(flat, GOOD.double() / 2, atol=1e-8)
    assert torch.allclose(
        D.discriminative(U, GOOD, weight=flat), D.discriminative(U, GOOD), atol=1e-8
    )  # DisCO is the hot limit
    assert D.positive_weights(quality, ~GOOD & GOOD).tolist() == [[0.0] * 4]
    masked = D.positive_weights(quality, GOOD, mask=torch.tensor([[1, 1, 0, 1]]))
    assert masked.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    holed = D.positive_weights(torch.tensor([[0.1, 0.9, float("nan"), 0.2]]), GOOD)
    assert holed.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_every_good_sample_rises_every_bad_one_falls() -> None:
    torch.manual_seed(0)
    scores, positive = torch.randn(30, 6, dtype=F64), torch.rand(30, 6) > 0.5
    mixed = positive.any(1) & ~positive.all(1)
    grad = gradient(scores, positive, tau=0.7)
    assert (grad[mixed][positive[mixed]] < 0).all() and (grad[mixed][~positive[mixed]] > 0).all()
    assert torch.allclose(grad.sum(1), torch.zeros(30, dtype=F64), atol=1e-12) and mixed.sum() > 20
    assert torch.autograd.gradcheck(lambda s: D.discriminative(s, positive[:3]), scores[:3].requires_grad_())


def test_one_sided_groups_teach_nothing() -> None:
    both = torch.cat([U, U, U])
    sides = torch.cat([torch.ones_like(GOOD), torch.zeros_like(GOOD), GOOD])
    out, grad = D.discriminative(both, sides), gradient(both, sides)
    assert out[:2].tolist() == [0.0, 0.0] and (grad[:2] == 0).all()
    assert torch.equal(out[2:], D.discriminative(U, GOOD)) and (grad[2] != 0).all()


def test_masked_samples_are_not_there() -> None:
    nan, mask = float("nan"), torch.tensor([[1, 1, 0, 1, 1, 0]])
    scores = torch.tensor([[-1.0, -2.0, nan, -0.5, -1.5, nan]], dtype=F64)
    positive = torch.tensor([[True, False, True, True, False, False]])
    weight = torch.tensor([[3.0, 1.0, nan, 1.0, 1.0, nan]], dtype=F64)
    full = D.discriminative(U, GOOD, weight=torch.tensor([[3.0, 1.0, 1.0, 1.0]], dtype=F64))
    assert torch.allclose(D.discriminative(scores, positive, weight=weight, mask=mask), full, atol=1e-12)
    grad = gradient(scores, positive, weight=weight, mask=mask)
    assert torch.isfinite(grad).all() and (grad[mask == 0] == 0).all()
    alone = D.discriminative(scores, positive, mask=torch.tensor([[1, 0, 0, 1, 0, 0]]))
    assert alone.item() == 0


def test_weights_do_not_learn_and_order_does_not_matter() -> None:
    weight = torch.ones(1, 4, requires_grad=True)
    scores = U.clone().requires_grad_()
    out = D.discriminative(scores, GOOD, weight=weight)
    assert torch.autograd.grad(out.sum(), (scores, weight), allow_unused=True)[1] is None
    assert not D.positive_weights(weight, GOOD).requires_grad
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(D.discriminative(U[:, order], GOOD[:, order]), D.discriminative(U, GOOD), atol=1e-12)
    assert D.discriminative(U.bfloat16(), GOOD).dtype == torch.float32
    extreme = torch.tensor([[1e4, -1e4, -50.0, 50.0]])
    assert torch.isfinite(D.discriminative(extreme, GOOD)).all() and torch.isfinite(gradient(extreme, GOOD)).all()
    zero = D.discriminative(U, GOOD, weight=torch.zeros(1, 4))
    assert torch.isfinite(zero).all()


def test_bad_input_is_refused() -> None:
    for call, words in [
        (lambda: D.discriminative(U.long(), GOOD), "floating"),
        (lambda: D.discriminative(U, GOOD[:, :3]), "positive"),
        (lambda: D.discriminative(U, GOOD, tau=0.0), "tau"),
        (lambda: D.discriminative(U, GOOD, weight=torch.ones(1, 3)), "weight"),
        (lambda: D.discriminative(U, GOOD, weight=-torch.ones(1, 4)), "weight"),
        (lambda: D.discriminative(U, GOOD, mask=torch.ones(1, 3)), "mask"),
        (lambda: D.positive_weights(U, GOOD, lam=0.0), "lam"),
        (lambda: D.positive_weights(U, GOOD[:, :3]), "positive"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
