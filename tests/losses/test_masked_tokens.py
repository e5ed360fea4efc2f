from __future__ import annotations

import pytest
import torch

from diffalign.losses.masked_tokens import coupled_log_prob

F64 = torch.float64


def test_log_probs_that_do_not_depend_on_the_mask_come_out_half_again_as_large() -> None:
    lp = torch.randn(2, 6, dtype=F64)
    for seed in range(3):
        chosen = torch.rand(2, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
        assert torch.allclose(coupled_log_prob(lp, lp, lp, chosen, torch.full((2,), 0.5)), 1.5 * lp, atol=1e-7)
    for ratio in (0.2, 0.8):  # in the mean over masks, for every ratio
        rho = torch.full((2,), ratio, dtype=F64)
        on, off = (coupled_log_prob(lp, lp, lp, torch.full((2, 6), b), rho) for b in (True, False))
        assert torch.allclose(ratio * on + (1 - ratio) * off, 1.5 * lp, atol=1e-12)


def test_golden_value_and_who_gets_the_gradient() -> None:
    full = torch.tensor([[-1.0, -2.0]], dtype=F64, requires_grad=True)
    subset = torch.tensor([[-0.5, -9.0]], dtype=F64, requires_grad=True)
    rest = torch.tensor([[-9.0, -0.8]], dtype=F64, requires_grad=True)
    ratio = torch.tensor([0.2], dtype=F64, requires_grad=True)
    value = coupled_log_prob(full, subset, rest, torch.tensor([[1, 0]]), ratio)
    assert value[0].tolist() == pytest.approx([(-1 - 2.5) / 2, (-2 - 1) / 2], abs=1e-12)
    value.sum().backward()
    assert full.grad[0].tolist() == [0.5, 0.5]
    assert subset.grad[0].tolist() == pytest.approx([2.5, 0]) and rest.grad[0].tolist() == pytest.approx([0, 0.625])
    assert ratio.grad is None


def test_half_precision_is_widened() -> None:
    half = torch.full((1, 2), -0.3, dtype=torch.bfloat16)
    value = coupled_log_prob(half, half, half, torch.tensor([[1, 0]]), torch.tensor([0.5]))
    assert value.dtype == torch.float32
    assert torch.allclose(value, 1.5 * half.float(), atol=1e-7)


def test_bad_input_is_refused() -> None:
    x, half = torch.zeros(2, 3), torch.full((2,), 0.5)
    for ratio in (0.0, 1.0, 1.2):
        with pytest.raises(ValueError, match=r"\(0, 1\)"):
            coupled_log_prob(x, x, x, x, torch.full((2,), ratio))
    with pytest.raises(ValueError, match="chosen"):
        coupled_log_prob(x, x, x, x[:, :2], half)
    with pytest.raises(ValueError, match=r"\(B, L\)"):
        coupled_log_prob(x, x, x, x, half[:1])
    with pytest.raises(ValueError, match=r"\(B, L\)"):
        coupled_log_prob(x[0], x[0], x[0], x[0], half)
    with pytest.raises(ValueError, match="rest must be of a floating"):
        coupled_log_prob(x, x, x.long(), x, half)
