from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.regression import regression_loss

F64 = torch.float64


def test_golden_value_and_gradient() -> None:
    r = torch.tensor([0.3, -1.5], dtype=F64, requires_grad=True)
    loss = regression_loss(r, torch.tensor([0.5, 2.0], dtype=F64), beta=2.0, log_z=0.7)
    assert loss.tolist() == pytest.approx([0.64, 18.49], abs=1e-12)  # (.6 + .7 - .5)**2, (-3 + .7 - 2)**2
    loss.sum().backward()
    assert r.grad.tolist() == pytest.approx([2 * 2 * 0.8, 2 * 2 * -4.3], abs=1e-12)


def test_defaults_are_the_plain_squared_difference() -> None:
    r = torch.tensor([3.0, -1.0], dtype=F64)
    assert regression_loss(r, torch.tensor([1.0, 1.5], dtype=F64)).tolist() == [4, 6.25]


def test_zero_gradient_at_target_minus_log_z_over_beta() -> None:
    target = torch.randn(5, dtype=F64)
    r = ((target - 0.3) / 0.04).requires_grad_()
    loss = regression_loss(r, target, beta=0.04, log_z=0.3)
    loss.sum().backward()
    assert torch.allclose(loss, torch.zeros_like(loss), atol=1e-20)
    assert torch.allclose(r.grad, torch.zeros_like(r), atol=1e-14)


def test_papers_form_is_this_one_over_beta_squared() -> None:
    r, target = torch.randn(2, 7, dtype=F64)
    assert torch.allclose((r - target / 0.3) ** 2, regression_loss(r, target, beta=0.3) / 0.09, atol=1e-10)


def test_a_constant_may_move_from_the_target_to_log_z() -> None:
    r, target = torch.randn(2, 7, dtype=F64)
    moved = regression_loss(r, target + 1.7, beta=0.3, log_z=1.7)
    assert torch.allclose(moved, regression_loss(r, target, beta=0.3), atol=1e-12)


def test_trajectory_balance_is_this_function() -> None:
    """log Z + log P_F - log P_B - log R: a learned log Z gets the gradient of every trajectory."""
    forward, backward, log_reward = torch.randn(3, 4, dtype=F64)
    log_z = torch.tensor(0.2, dtype=F64, requires_grad=True)
    loss = regression_loss(forward - backward, log_reward, log_z=log_z)
    residual = 0.2 + forward - backward - log_reward
    assert torch.allclose(loss.detach(), residual.square(), atol=1e-12)
    loss.sum().backward()
    assert log_z.grad.item() == pytest.approx(2 * residual.sum().item(), abs=1e-12)


def test_no_advantage_pulls_to_the_reference() -> None:
    r = torch.tensor([2.0, -3.0], dtype=F64, requires_grad=True)
    regression_loss(r, torch.zeros(2, dtype=F64)).sum().backward()
    assert (r.grad * r.detach() > 0).all()


def test_gradients_and_where_they_may_not_flow() -> None:
    r = torch.randn(2, 3, dtype=F64, requires_grad=True)
    target = torch.randn(2, 3, dtype=F64, requires_grad=True)
    beta, log_z = (torch.rand(2, dtype=F64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda a, z: regression_loss(a, target.detach(), beta=beta.detach(), log_z=z), (r, log_z)
    )
    regression_loss(r, target, beta=beta, log_z=log_z).sum().backward()
    assert target.grad is None and beta.grad is None
    assert r.grad.abs().min() > 0 and log_z.grad.abs().min() > 0


def test_one_value_per_row() -> None:
    r, target = torch.ones(2, 2, dtype=F64), torch.zeros(2, 2, dtype=F64)
    loss = regression_loss(r, target, beta=torch.tensor([2.0, 3.0]), log_z=torch.tensor([0.0, 1.0]))
    assert loss.tolist() == [[4, 4], [16, 16]]


def test_padding_reaches_neither_value_nor_gradient() -> None:
    r = torch.tensor([1.0, math.nan], requires_grad=True)
    loss = regression_loss(r, torch.tensor([0.0, math.inf]), log_z=5.0, mask=torch.tensor([1, 0]))
    loss.sum().backward()
    assert loss.tolist() == [36, 0]
    assert r.grad.tolist() == [12, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    r = torch.tensor([1e4, -50.0], dtype=dtype, requires_grad=True)
    loss = regression_loss(r, torch.tensor([0.0, 1.0]))
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert loss[1].item() == 2601


def test_bad_input_is_refused() -> None:
    x = torch.zeros(2)
    with pytest.raises(ValueError, match=r"target \(3,\)"):
        regression_loss(x, torch.zeros(3))
    with pytest.raises(ValueError, match="log_ratio must be of a floating"):
        regression_loss(x.long(), x)
    for beta in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="beta"):
            regression_loss(x, x, beta=beta)
    with pytest.raises(ValueError, match="no valid entry"):
        regression_loss(x, x, mask=torch.zeros(2))
    with pytest.raises(ValueError, match="fit"):
        regression_loss(x, x, log_z=torch.zeros(3))
    assert regression_loss(x, torch.tensor([1, 2])).tolist() == [1, 4]  # integer targets are fine
