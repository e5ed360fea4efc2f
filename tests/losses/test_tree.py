from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffalign.losses import group_advantage, no_scale
from diffalign.losses import tree as T

F64 = torch.float64
NAN = float("nan")
#        0
#      1   2          two children; node 1 has leaves 3, 4, 5, node 2 has leaf 6
PARENT = torch.tensor([-1, 0, 0, 1, 1, 1, 2])


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


LEAVES = f64(NAN, NAN, NAN, 1.0, 4.0, 4.0, 8.0)


def test_values_are_means_of_direct_children() -> None:
    assert T.backed_up(LEAVES, PARENT).tolist() == [5.5, 3.0, 8.0, 1.0, 4.0, 4.0, 8.0]
    junk = f64(99.0, 99.0, 99.0, 1.0, 4.0, 4.0, 8.0)
    assert T.backed_up(junk, PARENT).tolist() == [5.5, 3.0, 8.0, 1.0, 4.0, 4.0, 8.0]


def test_unscored_leaves_leave_the_mean() -> None:
    value = T.backed_up(f64(0, 0, 0, NAN, 4.0, 5.0, NAN), PARENT)
    assert value[1] == 4.5 and value[0] == 4.5 and value[2].isnan() and value[6].isnan()
    assert T.tree_advantage(value, PARENT).tolist() == [0.0, 0.0, 0.0, 0.0, -0.5, 0.5, 0.0]


def test_edges_by_hand() -> None:
    value = T.backed_up(LEAVES, PARENT)
    assert T.tree_advantage(value, PARENT).tolist() == [0.0, -2.5, 2.5, -2.0, 1.0, 1.0, 0.0]


def test_edges_telescope_and_siblings_sum_to_nothing() -> None:
    torch.manual_seed(0)
    parent = torch.tensor([-1] + [int(torch.randint(0, i, (1,))) for i in range(1, 40)])
    value = T.backed_up(torch.randn(40, dtype=F64), parent)
    edges = T.tree_advantage(value, parent)
    for leaf in range(40):
        total, node = 0.0, leaf
        while node >= 0:
            total, node = total + edges[node].item(), int(parent[node])
        assert total == pytest.approx((value[leaf] - value[0]).item())
    for node in range(40):
        assert edges[parent == node].sum().item() == pytest.approx(0.0, abs=1e-12)


def test_equal_leaves_and_one_segment() -> None:
    equal = T.backed_up(torch.full((7,), 0.1), PARENT)
    assert (T.tree_advantage(equal, PARENT) == 0).all() and (T.sibling_advantage(equal, PARENT, eps=1e-30) == 0).all()
    seven = torch.tensor([-1] + [0] * 7)  # 0.1 has no exact mean of seven
    assert (T.sibling_advantage(torch.full((8,), 0.1), seven, eps=1e-30) == 0).all()
    assert (T.tree_advantage(T.backed_up(torch.full((8,), 0.1), seven), seven) == 0).all()
    star = torch.tensor([-1, 0, 0, 0])
    edges = T.tree_advantage(T.backed_up(f64(0, 1.0, 2.0, 6.0), star), star)
    assert torch.allclose(edges[1:], group_advantage(f64([1.0, 2.0, 6.0]), scale=no_scale)[0], atol=1e-12)


def test_a_chain_gives_differences_and_several_trees_may_stand_together() -> None:
    parent = torch.tensor([-1, 0, 1, -1, 3])
    assert T.tree_advantage(f64(1.0, 3.0, 2.5, 7.0, 7.5), parent).tolist() == [0.0, 2.0, -0.5, 0.0, 0.5]


def test_siblings_are_standardised() -> None:
    value = f64(9.0, 3.0, 8.0, 1.0, 4.0, 4.0, 8.0)
    out = T.sibling_advantage(value, PARENT, eps=0.0)
    std = 2.0**0.5
    assert out[3:6].tolist() == pytest.approx([-2 / std, 1 / std, 1 / std])
    assert out[:3].tolist() == pytest.approx([0.0, -1.0, 1.0])
    single = T.sibling_advantage(value, PARENT)
    assert single[6] == 0.0 and single[1].item() == pytest.approx(-2.5 / (2.5 + 1e-6), abs=1e-12)
    holed = T.sibling_advantage(f64(9.0, 3.0, 8.0, 1.0, NAN, 4.0, 8.0), PARENT, eps=0.5)
    assert holed[3:6].tolist() == pytest.approx([-1.5 / 2.0, 0.0, 1.5 / 2.0])


def test_chain_of_beliefs() -> None:
    value = f64([0.1, 0.4, 0.3, NAN], [0.5, 0.5, 0.9, 1.0])
    assert T.chain_advantage(value)[0].tolist() == pytest.approx([0.3, -0.1, 0.0])
    assert T.chain_advantage(value)[1].sum().item() == pytest.approx(0.5)
    assert T.chain_advantage(value[:, :2])[0].tolist() == pytest.approx([0.3])
    masked = T.chain_advantage(value, mask=torch.tensor([[1, 0, 1], [0, 1, 1]]))
    assert masked[0].tolist() == pytest.approx([0.3, 0.0, 0.0]) and masked[1].tolist() == pytest.approx([0, 0.4, 0.1])


def test_segments_are_cut_at_unsure_tokens() -> None:
    prob = f64([0.95, 0.5, 0.9, 0.1, 0.89, 0.2, 0.99])
    assert T.cut_segments(prob, every=1)[0].tolist() == [0, 0, 1, 1, 2, 3, 4]
    assert T.cut_segments(prob, every=2)[0].tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert T.cut_segments(prob, every=1, threshold=0.15)[0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    long = T.cut_segments(torch.full((1, 11), 0.8))[0].tolist()
    assert long == [0] * 5 + [1] * 5 + [2]
    assert T.cut_segments(torch.full((1, 11), 0.9))[0].tolist() == [0] * 11


def test_advantages_are_spread_over_their_segments() -> None:
    out = T.spread(f64([1.0, -2.0], [3.0, 4.0]), torch.tensor([[0, 1, -1], [1, 1, 0]]))
    assert out.tolist() == [[1.0, -2.0, 0.0], [4.0, 4.0, 3.0]]


def test_nothing_learns_and_results_are_wide() -> None:
    value = torch.rand(7, requires_grad=True)
    for out in (T.backed_up(value, PARENT), T.tree_advantage(value, PARENT), T.sibling_advantage(value, PARENT)):
        assert not out.requires_grad
    chain = torch.rand(2, 3, requires_grad=True)
    assert not T.chain_advantage(chain).requires_grad and not T.spread(chain, torch.zeros(2, 4)).requires_grad
    half = value.detach().bfloat16()
    assert T.tree_advantage(half, PARENT).dtype == T.sibling_advantage(half, PARENT).dtype == torch.float32
    assert T.backed_up(half, PARENT).dtype == torch.float32


def test_bad_trees_are_refused() -> None:
    for function in (T.backed_up, T.tree_advantage, T.sibling_advantage):
        for parent in ([-1, 1], [-2, 0], [-1, 5], [-1, 0.5]):
            with pytest.raises(ValueError, match="parent"):
                function(torch.zeros(2), torch.tensor(parent))
        with pytest.raises(ValueError, match="one shape"):
            function(torch.zeros(2), torch.tensor([-1]))
        with pytest.raises(ValueError, match=r"\(N,\)"):
            function(torch.zeros(2, 2), torch.zeros(2, 2))


def test_bad_chains_are_refused() -> None:
    for call, words in [
        (lambda: T.chain_advantage(torch.zeros(3)), r"T \+ 1"),
        (lambda: T.chain_advantage(torch.zeros(3, 1)), r"T \+ 1"),
        (lambda: T.chain_advantage(torch.zeros(3, 3), mask=torch.ones(3, 3)), "mask"),
        (lambda: T.spread(torch.zeros(2, 3), torch.zeros(1, 4)), r"\(B, S\)"),
        (lambda: T.spread(torch.zeros(2), torch.zeros(2, 4)), r"\(B, S\)"),
        (lambda: T.spread(torch.zeros(2, 3), torch.full((2, 4), 3)), "segments"),
        (lambda: T.spread(torch.zeros(2, 3), torch.full((2, 4), -2)), "segments"),
        (lambda: T.cut_segments(torch.zeros(3)), r"\(B, T\)"),
        (lambda: T.cut_segments(torch.zeros(3, 2), every=0), "every"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
