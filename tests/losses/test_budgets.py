from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import budgets as B
from diffalign.losses import group_advantage, no_scale

F64 = torch.float64
NAN = float("nan")
R = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 4.0, 1.0]]], dtype=F64)
P = torch.tensor([0.2, 0.3, 0.5], dtype=F64)


def test_returns_by_hand() -> None:
    out = B.budget_returns(R, P)[0]
    assert out[0].tolist() == pytest.approx([1.2, 1.0, 1.0]) and out[1].tolist() == pytest.approx([1.7, 1.7, 0.5])


def test_baseline_by_hand() -> None:
    out = B.budget_baseline(R, P)[0]
    own = [[0.0, 1.0 * 0.8, (1.0 + 0.0) / 3 * 0.5], [0.0, 0.0, 8 / 3 * 0.5]]
    group = [1.45, 1.35, 0.75]
    for g in range(2):
        want = [s / 3 * own[g][s] + (3 - s) / 3 * group[s] for s in range(3)]
        assert out[g].tolist() == pytest.approx(want)


def test_the_past_weighs_by_powers_of_two() -> None:
    r = torch.tensor([[[1.0, 4.0, 0.0, 0.0]]], dtype=F64)
    flat = torch.full((4,), 0.25, dtype=F64)
    out = B.budget_baseline(r, flat)[0, 0]
    past = (1 * 1.0 + 2 * 4.0 + 4 * 0.0) / 7
    assert out[3].item() == pytest.approx(0.75 * past * 0.25 + 0.25 * 0.0)
    assert out[2].item() == pytest.approx(0.5 * 3.0 * 0.5 + 0.5 * 0.0)


def test_one_budget_is_centring() -> None:
    r = torch.randn(3, 5, dtype=F64)
    one = torch.ones(1, dtype=F64)
    adv = B.budget_returns(r[..., None], one) - B.budget_baseline(r[..., None], one)
    assert torch.allclose(adv[..., 0], group_advantage(r, scale=no_scale), atol=1e-12)


def test_hits_halve() -> None:
    correct = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert B.decay_by_hits(correct).tolist() == [[0, 1, 0, 0.5, 0.25], [1, 0, 0, 0, 0], [0] * 5]
    assert B.decay_by_hits(correct[:1], mask=torch.tensor([[1, 0, 1, 1, 1]])).tolist() == [[0, 0, 0, 1, 0.5]]


def test_anchors_of_the_paper() -> None:
    anchors = B.budget_anchor(torch.tensor([512, 1024, 2048, 2560], dtype=F64))
    assert anchors.tolist() == pytest.approx([3.923, 3.696, 2.828, 2.222], abs=5e-4)
    assert B.budget_anchor(torch.tensor([5.0]), longest=10.0).item() == pytest.approx(4 * math.sqrt(0.5))
    assert B.budget_anchor(torch.tensor([4096.0])).item() == pytest.approx(0.0, abs=1e-5)


def test_offset_by_hand() -> None:
    r = torch.tensor([[1.0, 3.0, 5.0, NAN, 2.0]], dtype=F64)
    budget = torch.tensor([[5.0, 5.0, 10.0, 5.0, 10.0]], dtype=F64)
    half = 4 * math.sqrt(0.5)
    out = B.subgroup_offset(r, budget, longest=10.0)[0].tolist()
    assert out == pytest.approx([2 - half, 2 - half, 3.5, 0.0, 3.5], abs=1e-12)
    masked = B.subgroup_offset(r, budget, longest=10.0, mask=torch.tensor([[1, 0, 1, 1, 1]]))[0].tolist()
    assert masked == pytest.approx([1 - half, 0.0, 3.5, 0.0, 3.5], abs=1e-12)
    default = B.subgroup_offset(r, torch.full((1, 5), 2048.0))[0, 0].item()
    assert default == pytest.approx(2.75 - half, abs=1e-5)


def test_prompts_do_not_mix() -> None:
    r = torch.tensor([[1.0, 3.0], [10.0, 30.0]], dtype=F64)
    out = B.subgroup_offset(r, torch.full((2, 2), 4096.0, dtype=F64))
    assert out.tolist() == [pytest.approx([2.0, 2.0], abs=1e-9), pytest.approx([20.0, 20.0], abs=1e-9)]


def test_nothing_learns() -> None:
    r = R.clone().requires_grad_()
    assert not B.budget_returns(r, P).requires_grad and not B.budget_baseline(r, P).requires_grad
    p = P.clone().requires_grad_()
    assert not B.budget_returns(R, p).requires_grad and not B.budget_baseline(R, p).requires_grad
    g = torch.rand(2, 3, requires_grad=True)
    assert not B.subgroup_offset(g, g).requires_grad and not B.budget_anchor(g).requires_grad
    assert B.budget_returns(R.bfloat16(), P).dtype == torch.float32
    assert B.budget_anchor(torch.tensor([5], dtype=torch.long)).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    g = torch.ones(2, 3)
    for call, words in [
        (lambda: B.budget_returns(R[0], P), r"\(B, G, S\)"),
        (lambda: B.budget_baseline(R, P[:2]), r"\(S,\)"),
        (lambda: B.budget_returns(R, -P), "prob"),
        (lambda: B.budget_returns(R, 0 * P), "prob"),
        (lambda: B.decay_by_hits(g, mask=torch.ones(2, 2)), "mask"),
        (lambda: B.budget_anchor(g, longest=0.0), "longest"),
        (lambda: B.subgroup_offset(g, g[:, :2]), r"\(2, 3\)"),
        (lambda: B.subgroup_offset(g[0], g[0]), r"\(B, G\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    assert torch.equal(B.budget_returns(R, torch.tensor([0.0, 0.0, 1.0])), R[:, :, 2:].expand_as(R))
