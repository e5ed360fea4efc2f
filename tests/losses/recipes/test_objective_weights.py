"""Weights of objectives, by name."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes import objective_weights
from diffalign.losses.recipes.objective_weights import hypervolume, sampled_hypervolume

F64 = torch.float64
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


GRAM = t([4, 0, -2], [0, 1, 0.5], [-2, 0.5, 9])


def test_drw() -> None:
    out = recipes.get("drw")(GRAM, t(0.5, 0.25, 0.25))  # influences 2, 1.5 and 7.5, times .1
    raw = [0.5 * math.exp(0.2), 0.25 * math.exp(0.15), 0.25 * math.exp(0.75)]
    assert out.tolist() == approx([w / sum(raw) for w in raw])


def test_drw_scales_the_reward_by_what_the_front_gains() -> None:
    front, zero = t([3, 1], [1, 3]), t(0, 0)  # volume 5; (2, 2) adds 1
    scale = objective_weights.drw_scale(front, t(2, 2), zero)
    assert scale.item() == approx(0.5 + 1.5 * math.tanh(1))
    assert objective_weights.drw_scale(front, t(1, 1), zero).item() == 0.5
    assert objective_weights.drw_scale(0.1 * front.float(), 0.1 * t(1, 1).float(), zero.float()).item() == 0.5


def test_barfi() -> None:
    assert recipes.get("barfi")(GRAM, t(1, 1, 1), lr=0.1).tolist() == approx([1.4, 1, 0.8])
    assert recipes.get("barfi")(GRAM, t(1, 1, 1), primary=2, lr=0.1).tolist() == approx([0.8, 1.05, 1.9])


def test_dreamprm() -> None:
    assert recipes.get("dreamprm")(t(5, -3), t(1, 2)).tolist() == approx([1.05, 1.97])


def test_pareto_da() -> None:
    gram = t([1, -0.5], [-0.5, 4])
    assert recipes.get("pareto-da")(gram, t(3, 1)).tolist() == approx([8 / 9, 1 / 9])
    assert recipes.get("pareto-da")(gram, t(-1, -3)).tolist() == approx([0.75, 0.25])  # the shortest mixture


D = torch.float64
STAIRS = torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]], dtype=D)
ZERO = torch.zeros(2, dtype=D)


def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def cells(points: torch.Tensor) -> int:
    """Unit cells of the positive orthant that integer points dominate."""
    top = int(points.max())
    grid = torch.cartesian_prod(*[torch.arange(top) + 0.5 for _ in range(points.shape[1])]).reshape(-1, points.shape[1])
    return int((grid[:, None] < points[None]).all(2).any(1).sum())


def test_hypervolume_by_hand() -> None:
    assert hypervolume(STAIRS, ZERO).item() == 6
    assert hypervolume(STAIRS, torch.tensor([1.0, 0.5], dtype=D)).item() == pytest.approx(2 * 0.5 + 1)
    assert hypervolume(torch.tensor([[2.0, 3.0, 5.0]]), torch.tensor([1.0, 1.0, 2.0])).item() == 1 * 2 * 3
    assert hypervolume(torch.tensor([[2.0], [7.0], [4.0]]), torch.tensor([3.0])).item() == 4


@pytest.mark.parametrize("k", [1, 2, 3])
def test_exact_volume_counts_cells(k: int) -> None:
    for seed in range(3):
        points = torch.randint(0, 7, (9, k), generator=torch.Generator().manual_seed(seed)).to(D)
        assert hypervolume(points, torch.zeros(k, dtype=D)).item() == cells(points)


def test_dominated_points_and_points_below_the_reference_change_nothing() -> None:
    more = torch.cat([STAIRS, torch.tensor([[1.5, 1.0], [-1.0, 9.0], [2.0, 2.0]], dtype=D)])
    assert hypervolume(more, ZERO).item() == 6
    assert hypervolume(-STAIRS, ZERO).item() == 0
    assert hypervolume(STAIRS.flip(0), ZERO).item() == 6
    for front, ref in ((STAIRS.clone().requires_grad_(), ZERO), (STAIRS, ZERO.clone().requires_grad_())):
        assert not hypervolume(front, ref).requires_grad


@pytest.mark.parametrize("k", [2, 3, 4])
def test_draws_estimate_it(k: int) -> None:
    points = torch.randint(1, 5, (6, k), generator=torch.Generator().manual_seed(k)).to(D)
    ref = torch.full((k,), 0.0, dtype=D)
    box = points.amax(0).prod().item()
    volume = float(cells(points))
    error = math.sqrt(volume * (box - volume) / 10_000)
    assert sampled_hypervolume(points, ref, generator=gen()).item() == pytest.approx(volume, abs=4 * error)
    shifted = sampled_hypervolume(points + 2, ref + 2, generator=gen(), samples=10_000)
    assert shifted.item() == pytest.approx(sampled_hypervolume(points, ref, generator=gen()).item())
    assert sampled_hypervolume(points, ref, generator=gen(), samples=1).item() in (0.0, box)


def test_one_point_needs_no_luck() -> None:
    point = torch.tensor([[2.0, 3.0, 1.0, 4.0]])
    assert sampled_hypervolume(point, torch.ones(4) * 0.5, generator=gen(), samples=7).item() == pytest.approx(6.5625)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sampled_hypervolume"):
        hypervolume(torch.ones(2, 4), torch.zeros(4))
    for front, ref in ((torch.ones(2), ZERO), (torch.ones(2, 3), ZERO), (torch.ones(0, 2), ZERO)):
        with pytest.raises(ValueError, match="need front"):
            hypervolume(front, ref)
    with pytest.raises(ValueError, match="finite"):
        hypervolume(torch.tensor([[math.nan, 1.0]]), ZERO)
    with pytest.raises(ValueError, match="samples"):
        sampled_hypervolume(STAIRS, ZERO, generator=gen(), samples=0)
