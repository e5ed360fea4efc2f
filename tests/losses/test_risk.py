from __future__ import annotations

import pytest
import torch

from diffalign.losses.risk import risk_advantage, share_by_merit

F64 = torch.float64
S = torch.tensor([0.0, 1.0, 2.5, 4.0, 9.0], dtype=F64)


def test_by_hand() -> None:
    middle = [-3 / 0.6, -3 / 0.6, -1.5 / 0.6, 0.0, 0.0]
    short = [-1 / 0.2, 0.0, 0.0, 0.0, 0.0]
    want = [(1.5 * c + g) / 2.5 for c, g in zip(short, middle, strict=True)]
    assert risk_advantage(S, 1.0, 4.0).tolist() == pytest.approx(want)
    bare = risk_advantage(S, 1.0, 4.0, a_lo=0.25, a_hi=0.75, omega=3.0, natural_baseline=False)
    assert bare.tolist() == pytest.approx([-3 / 4 * 4, 0.0, 3 / 4, 6 / 4, 6 / 4])


def test_with_the_baseline_it_is_a_clip() -> None:
    out = risk_advantage(S, 1.0, 4.0, omega=0.0)
    assert torch.allclose(out, (S.clamp(1.0, 4.0) - 4.0) / 0.6, atol=1e-12)


def test_never_falls_and_is_affine_between_wide_quantiles() -> None:
    s = torch.linspace(-3, 8, 200, dtype=F64)
    for baseline in (True, False):
        assert (risk_advantage(s, 1.0, 4.0, natural_baseline=baseline).diff() >= 0).all()
    wide = risk_advantage(s, -10.0, 10.0).diff()
    assert torch.allclose(wide, wide[:1].expand_as(wide), atol=1e-9) and wide[0] > 0


def test_a_mastered_bundle_gets_nothing() -> None:
    assert risk_advantage(S, 1.0, 4.0)[3:].tolist() == [0.0, 0.0]
    assert risk_advantage(S, 1.0, 4.0, natural_baseline=False)[3].item() == pytest.approx(3 / 0.6 / 2.5)


def test_unscored_bundles_get_nothing_and_nothing_learns() -> None:
    s = torch.tensor([float("nan"), 0.0], requires_grad=True)
    out = risk_advantage(s, torch.tensor(1.0, requires_grad=True), torch.tensor(4.0).double())
    assert out[0] == 0 and out[1] < 0 and not out.requires_grad and out.dtype == torch.float32


def test_shares_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0], [2.0, 2.0, 5.0]], dtype=F64)
    # merits: 2/3 -1/3 -1/3 and -1 -1 2; sums -1/3, -4/3, 5/3
    out = share_by_merit(torch.tensor([1.0, -2.0, 5.0], dtype=F64), rewards)
    assert out[0].tolist() == pytest.approx([-2.0, -0.5, -1.0]) and out[1].tolist() == pytest.approx([3.0, -1.5, 6.0])
    assert out.sum(0).tolist() == pytest.approx([1.0, -2.0, 5.0])
    two = share_by_merit(torch.tensor([[1.0, -2.0, 5.0]] * 2), torch.stack([rewards, rewards.flip(0)]))
    assert torch.allclose(two[0].double(), out, atol=1e-6) and torch.allclose(two[1].double(), out.flip(0), atol=1e-6)


def test_without_merit_all_get_the_same() -> None:
    same = torch.full((4, 2), 0.3)
    assert share_by_merit(torch.tensor([2.0, -1.0]), same).tolist() == [[0.5, -0.25]] * 4
    assert share_by_merit(torch.tensor([2.0, -1.0]), torch.tensor([[0.1, 0.9]])).tolist() == [[2.0, -1.0]]
    near = torch.tensor([[1e-7, -1e-7], [0.0, 0.0]], dtype=F64)
    assert share_by_merit(torch.tensor([1.0, 1.0]), near).tolist() == [[0.5, 0.5]] * 2
    assert share_by_merit(torch.tensor([1.0, 1.0]), near, tol=1e-9)[0].tolist() == pytest.approx([1.0, 1.0])
    assert share_by_merit(torch.ones(2), 10 * near).tolist() == [[0.5, 0.5]] * 2  # at the tolerance: nothing
    assert not share_by_merit(torch.ones(2, requires_grad=True), same.clone().requires_grad_()).requires_grad


def test_bad_input_is_refused() -> None:
    for call, words in [
        (lambda: risk_advantage(S, 4.0, 1.0), "lower quantile"),
        (lambda: risk_advantage(S, 1.0, 4.0, a_lo=0.8, a_hi=0.8), "a_lo"),
        (lambda: risk_advantage(S, 1.0, 4.0, a_lo=0.0), "a_lo"),
        (lambda: risk_advantage(S, 1.0, 4.0, a_hi=1.1), "a_hi"),
        (lambda: risk_advantage(S, 1.0, 4.0, omega=-1.0), "omega"),
        (lambda: share_by_merit(torch.zeros(3), torch.zeros(4)), r"\(\.\.\., P, G\)"),
        (lambda: share_by_merit(torch.zeros(3), torch.zeros(4, 2)), r"\(\.\.\., P, G\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    assert risk_advantage(S, 2.0, 2.0, a_hi=1.0).shape == S.shape
