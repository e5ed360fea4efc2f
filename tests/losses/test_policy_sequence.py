from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import masked_seq_mean, policy, policy_sequence

F64 = torch.float64
ALL = [policy_sequence.sequence_clip, policy_sequence.gspo, policy_sequence.gspo_token, policy_sequence.gmpo]
X = torch.tensor([[0.1, -0.2, 0.3], [0.4, 0.0, 7.0]], dtype=F64)
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])
ADV = torch.tensor([1.0, -2.0], dtype=F64)
WIDE = {"eps_low": 9.0, "eps_high": 9.0}


def gradient(loss, x: Tensor = X, **kwargs: object) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(masked_seq_mean(loss(x, ADV, mask=MASK, **kwargs), MASK), x)[0]


@pytest.mark.parametrize("loss", ALL)
def test_one_step_is_the_clip_of_that_step(loss) -> None:
    x = torch.tensor([0.1, -0.3, 0.05], dtype=F64)
    adv = torch.tensor([1.0, -1.0, 2.0], dtype=F64)
    settings = {"eps_low": 0.2, "eps_high": 0.2}
    if loss is policy_sequence.gmpo:  # whose range is in log units
        expected = -adv * torch.tensor([0.1, -0.2, 0.05], dtype=F64).exp()
    else:
        expected = policy.clip(x, adv, eps_low=0.2, eps_high=0.2)
    assert torch.allclose(loss(x, adv, **settings), expected)
    assert torch.allclose(loss(x[:, None], adv, **settings)[:, 0], expected)


@pytest.mark.parametrize("loss", ALL)
def test_every_valid_token_carries_the_sequences_loss(loss) -> None:
    out = loss(X, ADV, mask=MASK, **WIDE)
    assert out[1, 2] == 0
    if loss is not policy_sequence.gspo_token:
        assert (out[0] == out[0, 0]).all() and out[1, 0] == out[1, 1]
    means = [0.2 / 3, 0.2] if loss is not policy_sequence.sequence_clip else [0.2, 0.4]
    assert out[:, 0].tolist() == pytest.approx([-math.exp(means[0]), 2 * math.exp(means[1])])


def test_the_token_form_has_the_value_and_gradient_of_the_sequence_form() -> None:
    for settings in (WIDE, {"eps_low": 0.15, "eps_high": 0.1}):
        assert torch.allclose(
            gradient(policy_sequence.gspo, **settings), gradient(policy_sequence.gspo_token, **settings)
        )


def test_the_token_form_takes_an_advantage_for_each_token() -> None:
    adv = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]], dtype=F64)
    x = X.clone().requires_grad_()
    loss = policy_sequence.gspo_token(x, adv, mask=MASK, **WIDE)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    s = math.exp(0.2 / 3)
    assert grad[0].tolist() == pytest.approx([-s, 0.0, -2 * s]) and (grad[1] == 0).all()


def test_gmpo_clips_each_token_on_the_side_of_its_advantage() -> None:
    grads = gradient(policy_sequence.gmpo, torch.tensor([[0.5, -0.9, 0.1], [0.9, -0.5, 0.0]], dtype=F64))
    assert (grads != 0).tolist() == [[False, True, True], [True, False, False]]
    out = policy_sequence.gmpo(torch.tensor([[0.5, -0.9]], dtype=F64), torch.ones(1, dtype=F64))
    assert out[0, 0].item() == pytest.approx(-math.exp((0.4 - 0.9) / 2))


def test_defaults_and_bad_ranges() -> None:
    ranges = {loss.__name__: [loss.__kwdefaults__[key] for key in ("eps_low", "eps_high")] for loss in ALL}
    small = [3e-4, 4e-4]
    assert ranges == {"sequence_clip": [0.2, None], "gspo": small, "gspo_token": small, "gmpo": [0.4, 0.4]}
    for loss in ALL:
        with pytest.raises(ValueError, match="eps_low"):
            loss(X, ADV, eps_low=-0.1)
    with pytest.raises(ValueError, match="eps_high"):
        policy_sequence.gmpo(X, ADV, eps_high=-0.1)
