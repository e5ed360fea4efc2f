from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import anchor

D = torch.float64
X = torch.tensor([[3.0, 4.0], [1.0, -2.0]], dtype=D)
A = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], dtype=D)
W = torch.tensor([0.5, 0.25, 0.25], dtype=D)
SCORES = [anchor.linear, anchor.distance, anchor.cosine]


def close(x: torch.Tensor, values: list) -> None:
    assert torch.allclose(x, torch.tensor(values, dtype=x.dtype), atol=1e-6), x


def test_linear_by_hand() -> None:
    three = torch.cat([X, X[:1]])
    close(anchor.linear(three, A[:1], torch.full((3, 1), 2.0, dtype=D)), [6, 2, 6])  # more rows than features
    close(anchor.linear(X, A), [[3, 8, 25], [1, -4, -5]])
    close(anchor.linear(X, A, W), [1.5 + 2 + 6.25, 0.5 - 1 - 1.25])
    per_row = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=D)
    close(anchor.linear(X, A, per_row), [3, -5])


def test_distance_by_hand() -> None:
    close(anchor.distance(X, A), [[-math.sqrt(20), -math.sqrt(13), 0], [-2, -math.sqrt(17), -math.sqrt(40)]])
    close(anchor.distance(X, A, W), [-math.hypot(1.75, 2.5), -math.hypot(-0.25, -3.5)])  # the point (1.25, 1.5)
    per_row = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=D)
    close(anchor.distance(X, A, per_row), [-math.sqrt(20), -math.sqrt(40)])


def test_cosine_by_hand() -> None:
    close(anchor.cosine(X, A, log_scale=0.0), [[0.6, 0.8, 1], [5**-0.5, -2 / 5**0.5, -1 / 5**0.5]])
    one = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=D)
    close(anchor.cosine(X, A, one, log_scale=math.log(2)), [1.2, -4 / 5**0.5])
    close(anchor.cosine(X, A, W, log_scale=0.0)[:1], [(3.75 + 6) / (5 * math.hypot(1.25, 1.5))])
    assert anchor.cosine(X[:1], A[2:]).item() == pytest.approx(1 / 0.07)
    assert anchor.cosine(X[:1], A[2:], log_scale=9.0).item() == pytest.approx(100)
    assert anchor.cosine(X[:1], A[2:], log_scale=9.0, max_scale=5.0).item() == pytest.approx(5)


@pytest.mark.parametrize("score", SCORES)
def test_anchors_may_be_permuted_with_their_weights(score) -> None:
    order = [2, 0, 1]
    assert torch.allclose(score(X, A, W), score(X, A[order], W[order]), atol=1e-12)
    assert torch.allclose(score(X, A)[:, order], score(X, A[order]), atol=1e-12)
    first = torch.tensor([1.0, 0, 0], dtype=D)
    assert torch.allclose(score(X, A, first), score(X, A)[:, 0], atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_gradients_reach_everything(score) -> None:
    inputs = [x.clone().requires_grad_() for x in (X + 0.3, A, W)]
    assert torch.autograd.gradcheck(score, inputs)
    out = score(*(x.detach().half() for x in inputs))
    assert out.dtype == torch.float32 and out.shape == (2,)


def test_the_scale_learns() -> None:
    log_scale = torch.tensor(0.3, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: anchor.cosine(X, A, W, log_scale=s), log_scale)


@pytest.mark.parametrize("score", SCORES)
def test_at_the_anchor_and_at_zero_gradients_are_finite(score) -> None:
    x = torch.stack([A[2], torch.zeros(2, dtype=D)]).requires_grad_()
    (g,) = torch.autograd.grad(score(x, A).sum(), x)
    assert torch.isfinite(g).all()


def test_principal_directions() -> None:
    gen = torch.Generator().manual_seed(0)
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=D)
    difference = torch.randn(200, 1, dtype=D, generator=gen) * direction * 3 + torch.tensor([5.0, 5.0, 5.0])
    difference = difference + 0.1 * torch.randn(200, 3, dtype=D, generator=gen)
    heads = anchor.preference_pca(difference.requires_grad_(), n=2)
    assert heads.shape == (4, 3) and not heads.requires_grad
    assert abs(heads[0] @ direction) > 0.999  # the mean (5, 5, 5) is taken off
    assert torch.equal(heads[:2], -heads[2:])
    assert torch.allclose(heads[:2] @ heads[:2].T, torch.eye(2, dtype=D), atol=1e-9)


def test_norm_terms_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]], dtype=D, requires_grad=True)
    close(anchor.norm_gap(x), [16, 0.25, 1])
    close(anchor.norm_excess(x), [4, 0, 0])
    for term in (anchor.norm_gap, anchor.norm_excess):
        assert torch.isfinite(torch.autograd.grad(term(x).sum(), x)[0]).all()


def test_bad_input_is_refused() -> None:
    for features, anchors in ((X[0], A), (X, A[0]), (X, A[:, :1])):
        with pytest.raises(ValueError, match="need features"):
            anchor.linear(features, anchors)
    for weights in (W[:2], W[None].expand(3, -1)):
        with pytest.raises(ValueError, match="weights must be"):
            anchor.distance(X, A, weights)
    with pytest.raises(ValueError, match="floating"):
        anchor.linear(X.long(), A)
    with pytest.raises(ValueError, match="max_scale"):
        anchor.cosine(X, A, max_scale=0)
    for n in (0, 3):
        with pytest.raises(ValueError, match="n in 1"):
            anchor.preference_pca(X, n=n)
    with pytest.raises(ValueError, match="n in 1"):
        anchor.preference_pca(X[0], n=1)
    assert anchor.preference_pca(X, n=1).shape == (2, 2) and anchor.preference_pca(X, n=2).shape == (4, 2)
