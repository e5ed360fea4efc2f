from __future__ import annotations

import itertools
import math

import pytest
import torch

from diffalign.losses.ranking import pareto_rank, rank_agreement

NAN, INF = math.nan, math.inf


def test_agreement_by_hand() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0]])
    for b, share in (
        ([1.0, 2, 3], 1),
        ([3.0, 2, 1], 0),
        ([1.0, 3, 2], 2 / 3),
        ([2.0, 2, 2], 0.5),
        ([1.0, 1, 2], 5 / 6),
    ):
        assert rank_agreement(a, torch.tensor([b])).item() == pytest.approx(share)


def test_agreement_is_kendalls_tau() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = torch.randn(2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tau = [stats.kendalltau(x, y).statistic for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert rank_agreement(a, b).tolist() == pytest.approx([(t + 1) / 2 for t in tau])
    assert torch.allclose(rank_agreement(a, b), rank_agreement(b.exp(), 3 * a - 1))  # monotone maps, either side first
    order = torch.randperm(9)
    assert torch.allclose(rank_agreement(a, b), rank_agreement(a[:, order], b[:, order]))
    assert torch.allclose(rank_agreement(a, b) + rank_agreement(a, -b), torch.ones(6, dtype=torch.float64))


def test_agreement_leaves_out_what_cannot_be_compared() -> None:
    a = torch.tensor([[1.0, 2.0, NAN, 9.0], [1.0, NAN, NAN, NAN]], requires_grad=True)
    b = torch.tensor([[1.0, 2.0, 0.0, 0.5], [1.0, 2.0, 3.0, 4.0]])
    out = rank_agreement(a, b, mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]))
    assert out.tolist() == [1.0, 0.5] and not out.requires_grad
    assert rank_agreement(b, a, mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])).tolist() == [1.0, 0.5]
    assert rank_agreement(torch.ones(1, 1), torch.ones(1, 1)).item() == 0.5


def fronts_by_search(points: torch.Tensor) -> list[int]:
    """Rank of each point: the longest chain of points, each dominating the next, that ends in it."""
    rows = points.tolist()

    def dominates(p: list[float], q: list[float]) -> bool:
        return p != q and all(x >= y for x, y in zip(p, q, strict=True))

    rank = [0] * len(rows)
    for _ in rows:
        for i, j in itertools.product(range(len(rows)), repeat=2):
            if dominates(rows[i], rows[j]):
                rank[j] = max(rank[j], rank[i] + 1)
    return rank


@pytest.mark.parametrize("k", [1, 2, 3])
def test_fronts_agree_with_chains_of_domination(k: int) -> None:
    points = torch.randint(0, 5, (25, k), generator=torch.Generator().manual_seed(k)).float()
    assert pareto_rank(points).rank.tolist() == fronts_by_search(points)


def test_one_objective_orders_by_value() -> None:
    out = pareto_rank(torch.tensor([[3.0], [5.0], [1.0], [5.0]]))
    assert out.rank.tolist() == [1, 0, 2, 0]


def test_crowding_by_hand() -> None:
    points = torch.tensor([[0.0, 4.0], [1.0, 3.0], [3.0, 2.0], [4.0, 0.0], [0.0, 0.0]])
    rank, crowding = pareto_rank(points)
    assert rank.tolist() == [0, 0, 0, 0, 1]
    assert crowding.tolist() == pytest.approx([INF, 3 / 4 + 2 / 4, 3 / 4 + 3 / 4, INF, INF])
    assert pareto_rank(torch.cat([points, points[1:2]])).crowding[[1, 5]].tolist() == pytest.approx([1.25, 1.25])


def test_ranks_follow_a_permutation_and_crowding_does_not_see_scale() -> None:
    points = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    rank, crowding = pareto_rank(points)
    moved = pareto_rank((points * torch.tensor([3.0, 0.1]) + 7)[order])
    assert torch.equal(moved.rank, rank[order]) and torch.allclose(moved.crowding, crowding[order])
    assert not crowding.requires_grad


def test_unscored_points_come_last() -> None:
    rank, crowding = pareto_rank(torch.tensor([[NAN, 9.0], [1.0, 1.0], [0.0, 0.0], [INF, 0.0]]))
    assert rank.tolist() == [2, 0, 1, 2] and crowding.tolist() == [0, INF, INF, 0]
    assert pareto_rank(torch.full((2, 2), NAN)).rank.tolist() == [0, 0]


def test_bad_input_is_refused() -> None:
    for shape in ((3,), (0, 2), (2, 0)):
        with pytest.raises(ValueError, match=r"\(N, K\)"):
            pareto_rank(torch.zeros(shape))
    with pytest.raises(ValueError, match="one shape"):
        rank_agreement(torch.zeros(2, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"\(B, G\)"):
        rank_agreement(torch.zeros(3), torch.zeros(3))
