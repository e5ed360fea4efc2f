from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.rewards.functions.sets import (
    Statistics,
    frechet_distance,
    loo_diversity,
    mmd2,
    statistics,
    unit,
    vendi_score,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_vendi_counts_what_differs(n: int) -> None:
    assert float(vendi_score(noise(1, 6).expand(n, 6))) == pytest.approx(1.0)
    assert float(vendi_score(3.7 * torch.eye(6, dtype=torch.float64)[:n])) == pytest.approx(n)


def test_vendi_of_two_by_hand_and_of_groups() -> None:
    """Two unit vectors of cosine c: eigenvalues (1 + c) / 2 and (1 - c) / 2."""
    c = 0.6
    pair = torch.tensor([[1.0, 0.0], [c, math.sqrt(1 - c * c)]], dtype=torch.float64)
    entropy = -sum(p * math.log(p) for p in (0.8, 0.2))
    assert float(vendi_score(pair)) == pytest.approx(math.exp(entropy))
    twice = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    assert float(vendi_score(twice)) == pytest.approx(3.0)


def test_vendi_has_the_gradient_of_finite_differences_and_a_finite_one_at_copies() -> None:
    features = noise(4, 7).requires_grad_()
    assert torch.autograd.gradcheck(vendi_score, features)
    copies = noise(1, 7).expand(4, 7).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(vendi_score(copies), copies)
    assert gradient.isfinite().all()


def test_frechet_distances_of_gaussians_in_closed_form() -> None:
    unit_normal = Statistics(torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    plus_minus = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # mean 0, variance 1
    assert float(frechet_distance(plus_minus, unit_normal)) == pytest.approx(0.0, abs=1e-12)
    assert float(frechet_distance(plus_minus + 1, unit_normal)) == pytest.approx(1.0)
    assert float(frechet_distance(2 * plus_minus, unit_normal)) == pytest.approx(1.0)
    assert float(frechet_distance(torch.ones(1, 1, dtype=torch.float64), unit_normal)) == pytest.approx(2.0)


def test_frechet_is_zero_for_equal_sets_and_that_of_matrices_otherwise() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x, y = noise(30, 4) @ noise(4, 4, seed=1), 0.5 + noise(50, 4, seed=2)
    assert float(frechet_distance(x, statistics(x))) == pytest.approx(0.0, abs=1e-10)
    (m1, s1), (m2, s2) = statistics(x), statistics(y)
    root = linalg.sqrtm((s1 @ s2).numpy()).real
    expected = float(((m1 - m2) ** 2).sum() + s1.trace() + s2.trace()) - 2 * float(root.trace())
    assert float(frechet_distance(x, statistics(y))) == pytest.approx(expected)


def test_frechet_of_few_samples_in_many_dimensions() -> None:
    x, y = noise(3, 40), noise(200, 40, seed=2)
    value = frechet_distance(x, statistics(y))
    shifted = frechet_distance(x + 1, statistics(y + 1))
    assert float(value) > 0 and float(shifted) == pytest.approx(float(value))
    assert torch.autograd.gradcheck(lambda f: frechet_distance(f, statistics(y)), x.requires_grad_())


def test_statistics_divide_by_the_number() -> None:
    mean, covariance = statistics(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    assert mean.tolist() == [1.0, 1.0] and covariance.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_mmd_of_single_points_by_hand() -> None:
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 2.0, dtype=torch.float64)
    expected = sum(2 - 2 * math.exp(-4 / (2 * h * h)) for h in (1.0, 3.0)) / 2
    assert float(mmd2(x, y, (1.0, 3.0))) == pytest.approx(expected)


def test_mmd_is_zero_for_equal_samples_symmetric_and_positive() -> None:
    x, y = noise(6, 3), noise(9, 3, seed=1) + 1
    assert float(mmd2(x, x[[3, 1, 0, 2, 5, 4]])) == pytest.approx(0.0, abs=1e-12)
    assert float(mmd2(x, y)) == pytest.approx(float(mmd2(y, x))) and mmd2(x, y) > 0.001
    expected = sum(float(mmd2(x, y, (float(h),))) for h in range(1, 11)) / 10
    assert float(mmd2(x, y)) == pytest.approx(expected)


def test_loo_diversity_by_removal() -> None:
    features = noise(5, 4)

    def diversity(rows: Tensor) -> float:
        cosine = unit(rows) @ unit(rows).T
        pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
        return sum(float(1 - cosine[i, j]) for i, j in pairs) / max(len(pairs), 1)

    credit = loo_diversity(features)
    for member in range(5):
        rest = features[[other for other in range(5) if other != member]]
        assert float(credit[member]) == pytest.approx(diversity(features) - diversity(rest))
    assert loo_diversity(features[:1]).tolist() == [0.0]
    assert loo_diversity(features[:2])[0] == pytest.approx(diversity(features[:2]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vendi_score(torch.zeros(0, 3)), r"N >= 1"),
        (lambda: vendi_score(torch.zeros(3)), r"N >= 1"),
        (lambda: statistics(torch.zeros(2, 3, dtype=torch.long)), r"floats"),
        (lambda: mmd2(torch.zeros(2, 3), torch.zeros(2, 4)), "differ in dimension"),
        (lambda: mmd2(torch.zeros(2, 3), torch.zeros(2, 3), ()), "bandwidths are positive"),
        (lambda: mmd2(torch.zeros(2, 3), torch.zeros(2, 3), (0.0,)), "bandwidths are positive"),
        (lambda: frechet_distance(torch.zeros(2, 3), statistics(torch.zeros(2, 4))), "against statistics"),
    ],
)
def test_what_is_no_set_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
