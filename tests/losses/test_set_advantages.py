from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import set_advantages as S

F64 = torch.float64
SUMS = [S.reward_sum, S.advantage_sum, S.hierarchical_sum]
U = torch.tensor([[[1.0, 2.0], [4.0, 9.0], [0.0, 0.5]]], dtype=F64)
D = torch.tensor([[0.2, 0.8, 0.5]], dtype=F64)
C = torch.tensor([[[0.1, 0.3], [0.7, 0.2], [0.0, 0.4]]], dtype=F64)


def loo(x: Tensor, dim: int) -> Tensor:
    """Minus the mean of the others, written out pair by pair."""
    n = x.shape[dim]
    return sum((x - x.roll(k, dim) for k in range(1, n)), torch.zeros_like(x)) / (n - 1)


def loo_all(x: Tensor) -> Tensor:
    return loo(x.flatten(1), 1).view_as(x)


def test_without_credit_by_hand() -> None:
    w = 0.25
    wide = D[:, :, None].expand_as(U)
    assert torch.allclose(S.reward_sum(U, D, weight=w), loo_all(0.75 * U + 0.25 * wide), atol=1e-12)
    both = 0.75 * loo_all(U) + 0.25 * loo(D, 1)[:, :, None]
    assert torch.allclose(S.advantage_sum(U, D, weight=w), both, atol=1e-12)
    inside = 0.75 * loo(U, 2) + 0.25 * loo(D, 1)[:, :, None]
    assert torch.allclose(S.hierarchical_sum(U, D, weight=w), inside, atol=1e-12)


def test_shares_by_hand() -> None:
    gain, loss = S.credit_weights(C)
    z = 0.1 / (0.1 * math.sqrt(2) + 1e-4)
    up = 2 / (1 + math.exp(-2 * z))
    assert gain[0, 0].tolist() == pytest.approx([2 - up, up]) and loss[0, 0].tolist() == pytest.approx([up, 2 - up])
    sharp, _ = S.credit_weights(C, temperature=0.5)
    assert sharp[0, 0, 1].item() == pytest.approx(2 / (1 + math.exp(-4 * z)))


def test_with_credit_by_hand() -> None:
    gain, loss = S.credit_weights(C, temperature=0.7)
    adv = loo(D, 1)
    shared = torch.stack([adv[0, n] * (gain if adv[0, n] > 0 else loss)[0, n] for n in range(3)])[None]
    assert (adv[0] > 0).tolist() == [False, True, False] or (adv[0] == 0).any()
    w = {"credit": C, "weight": 0.4, "temperature": 0.7}
    value = D[:, :, None] + torch.stack([adv[0, n] * ((gain if adv[0, n] > 0 else loss)[0, n] - 1) for n in range(3)])
    assert torch.allclose(S.reward_sum(U, D, **w), loo_all(0.6 * U + 0.4 * value), atol=1e-12)
    assert torch.allclose(S.advantage_sum(U, D, **w), 0.6 * loo_all(U) + 0.4 * shared, atol=1e-12)
    baseline = 0.6 * (U - loo(U, 2)) + 0.4 * (D - adv)[:, :, None]
    want = 0.6 * U + 0.4 * value - baseline
    assert torch.allclose(S.hierarchical_sum(U, D, **w), want, atol=1e-12)


def test_defaults() -> None:
    for combine in SUMS:
        explicit = combine(U, D, credit=C, weight=0.9, temperature=1.0)
        assert torch.equal(combine(U, D, credit=C), explicit)
        assert not torch.allclose(combine(U, D, credit=C, temperature=1.1), explicit)


def test_sharing_keeps_the_mean_of_a_set() -> None:
    torch.manual_seed(0)
    credit = torch.randn(2, 3, 4, dtype=F64)
    for weights in S.credit_weights(credit, temperature=0.3):
        assert torch.allclose(weights.mean(2), torch.ones(2, 3, dtype=F64), atol=1e-12)
    same = torch.full((2, 3, 4), 0.3, dtype=F64)
    assert all(torch.equal(w, torch.ones_like(w)) for w in S.credit_weights(same))
    u, d = torch.randn(2, 3, 4, dtype=F64), torch.rand(2, 3, dtype=F64)
    for combine in SUMS:
        assert torch.allclose(combine(u, d, credit=same), combine(u, d), atol=1e-12)
        shared = combine(u, d, credit=credit) - combine(u, d)
        assert torch.allclose(shared.sum(2), torch.zeros(2, 3, dtype=F64), atol=1e-12) or combine is S.reward_sum


def test_without_weight_on_diversity_only_utility_counts() -> None:
    for combine in (S.reward_sum, S.advantage_sum):
        assert torch.allclose(combine(U, D, credit=C, weight=0.0), loo_all(U), atol=1e-12)
    assert torch.allclose(S.hierarchical_sum(U, D, credit=C, weight=0.0), loo(U, 2), atol=1e-12)


@pytest.mark.parametrize("combine", SUMS)
def test_order_of_samples_and_of_sets(combine) -> None:
    torch.manual_seed(1)
    u, d, c = torch.randn(2, 3, 4, dtype=F64), torch.rand(2, 3, dtype=F64), torch.randn(2, 3, 4, dtype=F64)
    out, i, j = combine(u, d, credit=c), torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    assert torch.allclose(combine(u[:, :, i], d, credit=c[:, :, i]), out[:, :, i], atol=1e-12)
    assert torch.allclose(combine(u[:, j], d[:, j], credit=c[:, j]), out[:, j], atol=1e-12)


@pytest.mark.parametrize("combine", SUMS)
def test_unscored_samples_get_nothing_and_nothing_learns(combine) -> None:
    u = U.clone()
    u[0, 1, 0] = float("nan")
    out = combine(u.requires_grad_(), D.clone().requires_grad_(), credit=C.clone().requires_grad_())
    assert torch.isfinite(out).all() and out[0, 1, 0] == 0 and not out.requires_grad
    assert combine(U.bfloat16(), D.bfloat16()).dtype == torch.float32
    assert combine(U[:, :, :1], D).shape == (1, 3, 1) and combine(U[:, :2], D[:, :2]).shape == (1, 2, 2)


def test_gate_closes_the_diversity_of_bad_sets() -> None:
    assert S.gate_diversity(D, U, threshold=1.0).tolist() == [[0.2, 0.8, 0.0]]
    assert S.gate_diversity(D, U, threshold=1.5).tolist() == [[0.0, 0.8, 0.0]]  # at the threshold: closed
    assert not S.gate_diversity(D.clone().requires_grad_(), U, threshold=1.0).requires_grad
    holed = U.clone()
    holed[0, 1, 0] = float("nan")
    assert S.gate_diversity(D, holed, threshold=1.0).tolist() == [[0.2, 0.8, 0.0]]


def test_bad_input_is_refused() -> None:
    for call, words in [
        (lambda: S.reward_sum(U[0], D), r"\(S, N, G\)"),
        (lambda: S.reward_sum(U, D[:, :2]), r"\(S, N\)"),
        (lambda: S.advantage_sum(U[:, :1], D[:, :1]), "N >= 2"),
        (lambda: S.advantage_sum(U, D, weight=1.1), "weight"),
        (lambda: S.hierarchical_sum(U, D, weight=-0.1), "weight"),
        (lambda: S.reward_sum(U, D, credit=C[:, :, :1]), "credit"),
        (lambda: S.reward_sum(U, D, credit=C, temperature=0.0), "temperature"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
