"""Weights from inner products of gradients, held against brute force and the geometry they promise."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from diffalign.losses import objective_weights as ow

F64 = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def gradients(k: int, seed: int = 0, d: int = 4) -> torch.Tensor:
    return torch.randn(k, d, dtype=F64, generator=torch.Generator().manual_seed(seed))


def simplex(k: int, n: int = 20_000) -> torch.Tensor:
    draws = torch.rand(n, k, dtype=F64, generator=torch.Generator().manual_seed(1)).log().neg() ** 3
    return draws / draws.sum(1, keepdim=True)


def test_mirror_by_hand() -> None:
    gram = t([1, 0.5], [0.5, -2])  # influences 1.5 and -1.5
    out = ow.mirror(gram, t(0.25, 0.75), lr=0.2, mu=0.1)
    assert out[0].item() == pytest.approx(1 / (1 + 3 * math.exp(-6)))
    assert out.sum().item() == pytest.approx(1.0)
    defaults = inspect.signature(ow.mirror).parameters
    assert (defaults["lr"].default, defaults["mu"].default) == (1e-6, 1e-5)


def test_equal_influence_changes_no_weight() -> None:
    w = t(0.2, 0.3, 0.5)
    assert torch.allclose(ow.mirror(torch.eye(3, dtype=F64) + 1, w), w)
    assert ow.mirror(torch.diag(t(5, 1, 1)), w, lr=1e-5)[0] > w[0]


def test_hypergradient() -> None:
    assert ow.hypergradient(t(4, 0, -2), t(1, 0.5, 0.25), lr=0.1).tolist() == pytest.approx([1.4, 0.5, 0.05])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_min_norm_is_the_shortest_mixture_and_worsens_nothing(k: int, seed: int) -> None:
    g = gradients(k, seed)
    gram = g @ g.T
    w = ow.min_norm(gram)
    length = w @ gram @ w
    draws = simplex(k)
    assert (w >= 0).all() and w.sum().item() == pytest.approx(1.0)
    assert length <= ((draws @ gram) * draws).sum(1).min() + 1e-12
    assert (gram @ w >= length - 1e-9).all()
    assert length <= gram.diagonal().min() + 1e-12


def test_min_norm_by_hand() -> None:
    assert torch.allclose(ow.min_norm(t([1, 0], [0, 4])), t(0.8, 0.2))
    assert torch.allclose(ow.min_norm(t([1, 2], [2, 9])), t(1, 0))  # the longer one points the same way
    assert torch.allclose(ow.min_norm(t([1, -1], [-1, 1])), t(0.5, 0.5))
    assert ow.min_norm(torch.zeros(2, 2, dtype=F64)).sum() == 1
    order = [2, 0, 1]
    g = gradients(3, 7)
    gram = g @ g.T
    assert torch.allclose(ow.min_norm(gram[order][:, order]), ow.min_norm(gram)[order])
    assert torch.allclose(ow.min_norm(1e-12 * gram), ow.min_norm(gram))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_aligned_beats_every_allowed_mixture(k: int, seed: int) -> None:
    g = gradients(k, seed)
    target = g @ gradients(1, seed + 50)[0]
    gram = g @ g.T
    w = ow.aligned(gram, target)
    assert (w >= 0).all() and w.sum().item() == pytest.approx(1.0) and (gram @ w).min() >= -1e-9
    draws = simplex(k)
    allowed = draws[(draws @ gram >= 0).all(1)]
    best = (allowed @ target).max() if len(allowed) else -torch.inf
    if w @ target > 0:
        assert w @ target >= best - 1e-9
    else:
        assert torch.equal(w, ow.min_norm(gram)) and best <= 1e-9


def test_aligned_by_hand() -> None:
    gram = t([1, -0.5], [-0.5, 4])  # at least 1/3 and at most 8/9 of the first
    assert torch.allclose(ow.aligned(gram, t(3, 1)), t(8 / 9, 1 / 9))
    assert torch.allclose(ow.aligned(gram, t(1, 3)), t(1 / 3, 2 / 3))
    assert torch.allclose(ow.aligned(gram, t(-1, -3)), ow.min_norm(gram))
    assert torch.allclose(ow.aligned(torch.ones(3, 3, dtype=F64), t(1, 3, 2)), t(0, 1, 0))
    assert torch.allclose(ow.aligned(1e-9 * gram, t(3, 1)), t(8 / 9, 1 / 9))


def test_hypervolume_scale() -> None:
    assert ow.hypervolume_scale(0.0).item() == 0.5
    assert ow.hypervolume_scale(t(0.7)).item() == pytest.approx(0.5 + 1.5 * math.tanh(0.7))
    assert ow.hypervolume_scale(40.0).item() == 2.0
    with pytest.raises(ValueError, match="gain must be"):
        ow.hypervolume_scale(-0.1)


@pytest.mark.parametrize(
    "weigh",
    [
        lambda g: ow.mirror(g, torch.ones(len(g)) / 2),
        lambda g: ow.hypergradient(g[0], torch.ones(len(g)), lr=0.1),
        ow.min_norm,
        lambda g: ow.aligned(g, torch.ones(len(g))),
    ],
    ids=["mirror", "hypergradient", "min_norm", "aligned"],
)
def test_weights_are_detached_and_wide(weigh) -> None:
    out = weigh(torch.eye(2, dtype=torch.bfloat16).requires_grad_())
    assert out.dtype == torch.float32 and out.shape == (2,) and not out.requires_grad
    assert weigh(torch.eye(2, dtype=F64)).dtype == F64


EYE = torch.eye(2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ow.mirror(torch.ones(2, 3), t(1, 1)), r"\(K, K\), got \(2, 3\)"),
        (lambda: ow.mirror(torch.ones(2), t(1, 1)), r"\(K, K\)"),
        (lambda: ow.min_norm(torch.zeros(0, 0)), r"\(K, K\)"),
        (lambda: ow.min_norm(t([1, 2], [3, 4])), "symmetric"),
        (lambda: ow.min_norm(t([math.nan])), "finite"),
        (lambda: ow.mirror(EYE, t(1, 1, 1)), "weights must hold 2 finite numbers"),
        (lambda: ow.mirror(EYE, t(1, 0)), "weights must be positive"),
        (lambda: ow.mirror(EYE, t(1, 1), lr=0.0), "lr must be positive"),
        (lambda: ow.mirror(EYE, t(1, 1), mu=0.0), "mu must be positive"),
        (lambda: ow.hypergradient(t(1, 1), t(1), lr=0.1), "products must hold 1"),
        (lambda: ow.hypergradient(t(1, math.nan), t(1, 1), lr=0.1), "products must hold 2 finite"),
        (lambda: ow.hypergradient(t(1), t(1), lr=0.0), "lr must be positive"),
        (lambda: ow.min_norm(torch.eye(11)), "at most 10, got 11"),
        (lambda: ow.aligned(torch.eye(9), torch.ones(9)), "at most 8, got 9"),
        (lambda: ow.aligned(EYE, t(1)), "target must hold 2"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_the_largest_number_of_objectives() -> None:
    assert torch.allclose(ow.min_norm(torch.eye(10, dtype=F64)), torch.full((10,), 0.1, dtype=F64))
