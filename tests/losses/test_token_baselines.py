from __future__ import annotations

import pytest
import torch

from diffalign.losses import gae
from diffalign.losses import token_baselines as B

F64 = torch.float64
MASK = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0]])


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(0))


def test_whitening_gives_mean_zero_and_unit_variance_over_valid_tokens() -> None:
    x = torch.where(MASK.bool(), randn(2, 4) + 1e6, torch.nan)
    out = B.whiten(x, mask=MASK, eps=0.0)
    kept = out[MASK.bool()]
    assert kept.mean().item() == pytest.approx(0, abs=1e-9) and kept.std().item() == pytest.approx(1)
    assert (out[~MASK.bool()] == 0).all() and not B.whiten(randn(2, 4).requires_grad_()).requires_grad
    assert (
        B.whiten(torch.tensor([[3.0]])).tolist() == [[0.0]]
        and B.whiten(torch.zeros(1, 2).bfloat16()).dtype == torch.float32
    )
    assert B.whiten(torch.tensor([[0.0, 2.0]]), eps=2.0).tolist() == [[-0.5, 0.5]]


def test_returns_pass_over_masked_tokens() -> None:
    r = torch.tensor([[1.0, 2.0, 50.0, 4.0], [3.0, 9.0, 9.0, 9.0]], dtype=F64)
    out = B.returns_to_go(r, mask=MASK, gamma=0.5)
    assert out.tolist() == [[1 + 1 + 1, 2 + 2, 0, 4], [3, 0, 0, 0]]
    everything = B.returns_to_go(r, gamma=0.5)
    assert torch.allclose(everything, gae.gae(r, torch.zeros_like(r), gamma=0.5, lam=1.0).returns)


def test_equal_energies_make_the_baseline_the_mean_return() -> None:
    r, mask = randn(2, 3, 4), torch.ones(2, 3, 4)
    adv = B.optimal_token_baseline(r, torch.full((2, 3, 4), -0.7), torch.full((2, 3, 4), 0.4), mask=mask)
    to_go = B.returns_to_go(r.view(6, 4)).view(2, 3, 4)
    assert torch.allclose(adv, to_go - to_go.mean(1, keepdim=True), atol=1e-7)


def test_the_longest_members_tail_has_no_baseline() -> None:
    r = torch.zeros(1, 2, 3, dtype=F64)
    r[0, 0, 2] = r[0, 1, 0] = 1.0
    mask = torch.tensor([[[1, 1, 1], [1, 0, 0]]])
    logp, square = torch.full((1, 2, 3), -0.5), torch.full((1, 2, 3), 0.5)
    adv = B.optimal_token_baseline(r, logp, square, mask=mask)
    assert adv[0, 0].tolist() == pytest.approx([0, 1, 1], abs=1e-6)
    held = B.optimal_token_baseline(r, logp, square, mask=mask, zero_tail=False)
    assert held[0, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    tie = B.optimal_token_baseline(r, logp, square, mask=torch.ones(1, 2, 3))
    assert tie[0].sum(0).abs().max() < 1e-6
    alone = B.optimal_token_baseline(r[:, :1], logp[:, :1], square[:, :1], mask=mask[:, :1])
    assert alone[0, 0].tolist() == [1, 1, 1]


def test_no_gradient_and_three_axes() -> None:
    live = [randn(1, 2, 3).requires_grad_() for _ in range(3)]
    assert not B.optimal_token_baseline(*live, mask=torch.ones(1, 2, 3)).requires_grad
    with pytest.raises(ValueError, match=r"\(B, G, T\)"):
        B.optimal_token_baseline(*(x[0] for x in live), mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match="sum_sq"):
        B.optimal_token_baseline(live[0], live[1], live[2][:, :1], mask=torch.ones(1, 2, 3))


def test_valid_tokens_move_to_the_front_and_back() -> None:
    x = torch.tensor([[5.0, 6.0, 7.0, 8.0]])
    front, order = B.compressed(x, torch.tensor([[0, 1, 0, 1]]))
    assert front.tolist() == [[6.0, 8.0, 5.0, 7.0]]
    assert torch.equal(torch.zeros_like(x).scatter(-1, order, front), x)


def test_the_baseline_weights_returns_by_the_energy_so_far() -> None:
    """p = .5, .25 and sums of squares .5, .75: energies .5, 1.75, of the other member .25, .75 (p = .75, .5)."""
    logp = torch.tensor([[[0.5, 0.25], [0.75, 0.5]]], dtype=F64).log()
    square = torch.tensor([[[0.5, 0.75], [0.75, 0.5]]], dtype=F64)
    r = torch.tensor([[[0.0, 4.0], [0.0, 1.0]]], dtype=F64)
    adv = B.optimal_token_baseline(r, logp, square, mask=torch.ones(1, 2, 2), eps=0.25)
    first, second = (0.5 * 4 + 0.25) / (0.75 + 0.25), (1.75 * 4 + 0.75) / (2.5 + 0.25)
    assert adv[0].flatten().tolist() == pytest.approx([4 - first, 4 - second, 1 - first, 1 - second])
    nothing = B.optimal_token_baseline(r, logp, 2 * logp.exp() - 1, mask=torch.ones(1, 2, 2), eps=1.0)
    assert nothing[0].flatten().tolist() == pytest.approx([4, 4, 1, 1])


def test_returns_and_whitening_have_no_gradient_and_verls_eps() -> None:
    live = randn(2, 4).requires_grad_()
    assert not B.returns_to_go(live).requires_grad and B.whiten.__kwdefaults__ == {"mask": None, "eps": 1e-8}


def test_tokens_move_along_the_last_axis() -> None:
    front, order = B.compressed(torch.tensor([[[5.0, 6.0], [7.0, 8.0]]]), torch.tensor([[[0, 1], [0, 1]]]))
    assert front.tolist() == [[[6.0, 5.0], [8.0, 7.0]]] and order.tolist() == [[[1, 0], [1, 0]]]
