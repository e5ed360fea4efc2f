from __future__ import annotations

import pytest
import torch

from diffalign.losses import guard_weights, tempflow_weights, uniform_weights

F64 = torch.float64
WEIGHTS = [uniform_weights, tempflow_weights, guard_weights]
# Flow-SDE a = .7 on SD3.5's ten-step sigmas (shift 3), the nine steps that are trained
SIGMAS = [1, 0.960129, 0.913349, 0.857692, 0.790368, 0.707278, 0.602151, 0.464876, 0.278049, 0.008929]


def table() -> tuple[torch.Tensor, torch.Tensor]:
    sigma = torch.tensor(SIGMAS, dtype=F64)
    dt = sigma[1:] - sigma[:-1]
    s = 0.7 * (sigma[:-1] / (1 - torch.cat([sigma[1:2], sigma[1:-1]]))).sqrt()
    return s * dt.abs().sqrt(), dt


def test_tempflow_golden_weights() -> None:
    golden = [1.577, 1.673, 1.208, 1.004, 0.882, 0.795, 0.719, 0.635, 0.508]
    assert tempflow_weights(*table()).tolist() == pytest.approx(golden, abs=6e-4)


def test_what_remains_of_the_gradient_is_proportional_to_the_step() -> None:
    """A mean log-prob's gradient in the velocity goes as |dt| / c; weighted by c it is |dt| alone, by 1/|dt| it is
    1/c.
    """
    std, dt = table()
    for weights, left in ((tempflow_weights, dt.abs()), (guard_weights, 1 / std)):
        ratio = weights(std, dt) * (dt.abs() / std) / left
        assert torch.allclose(ratio, ratio[:1].expand(9), atol=1e-12)


def test_uniform_is_one() -> None:
    assert torch.equal(uniform_weights(*table()), torch.ones(9, dtype=F64))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_mean_is_one_over_the_trained_steps(weights) -> None:
    std, dt = (x.repeat(3, 1) for x in table())
    mask = torch.ones(3, 9)
    mask[0, 2:] = 0
    mask[1] = 0
    out = weights(std, dt, mask)
    assert (out[mask == 0] == 0).all()
    assert out.sum(1).tolist() == pytest.approx([2, 0, 9])
    assert weights(*table()).mean().item() == pytest.approx(1)
    assert torch.allclose(out[2], weights(*table()), atol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_deterministic_steps_may_be_masked_out(weights) -> None:
    std = torch.tensor([0.0, 0.5, float("nan"), 0.25])
    dt = torch.tensor([0.0, -0.5, float("nan"), -0.25])
    out = weights(std, dt, torch.tensor([0, 1, 0, 1]))
    assert torch.isfinite(out).all() and out.sum() == 2


@pytest.mark.parametrize("weights", WEIGHTS)
def test_contract(weights) -> None:
    std, dt = (x.clone().requires_grad_() for x in table())
    assert not weights(std, dt).requires_grad
    assert weights(std.bfloat16(), dt.bfloat16()).dtype == torch.float32
    assert torch.equal(weights(std, -dt), weights(std, dt))
    with pytest.raises(ValueError, match="share one shape"):
        weights(std, dt[:3])
    with pytest.raises(ValueError, match="mask"):
        weights(std, dt, torch.ones(3))
