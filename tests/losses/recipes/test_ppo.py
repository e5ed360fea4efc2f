"""PPO and its kin give the loss and the gradient of TRL's and verl's code."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from diffalign.losses import masked_const, recipes
from tests.losses.released import ADV, F64, MASK, policy_gradient

CLIPPED = [0, -0.09395841, -0.14016948, 0, 0.06694395, 0.10498902, 0, 0, 0, -0.040215, 0, 0]
PLAIN = [-2 / 15] * 4 + [0.07777778] * 3 + [0, -0.04444444, -0.04444444, 0, 0]
RELEASED = {
    "reinforce": ({}, None, PLAIN),  # the value of -A x differs from that of -A logp
    "gpg": ({}, None, PLAIN),
    "ppo": ({}, -0.41352103, CLIPPED),
    "dual-clip-ppo": ({"bound": 1.3}, -0.41739893, [*CLIPPED[:5], 0, *CLIPPED[6:]]),
    "grpo": (
        {},
        -0.32176322,
        [0, -0.07046881, -0.10512711, 0, 0.06694395, 0.10498902, 0, 0, 0, -0.06032249, 0, 0],
    ),
    "dapo": ({}, -0.43840992, CLIPPED),
    "dr-grpo": (
        {},
        -0.24811262,
        [0, -0.05637505, -0.08410169, 0, 0.04016637, 0.06299341, 0, 0, 0, -0.024129, 0, 0],
    ),
    "trl-bnpo": ({}, -0.41352103, CLIPPED),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_values(name: str) -> None:
    """TRL 1.16.0 grpo_trainer.py, epsilon .2 (dapo: .2 and .28); verl 0.9.1 compute_policy_loss_vanilla and _gpg."""
    settings, value, gradient = RELEASED[name]
    method = recipes.get(name)
    reduce = partial(masked_const, norm=3 * 5) if name == "dr-grpo" else method.reduce
    assert reduce is not None
    found = policy_gradient(lambda x: reduce(method(x, ADV, mask=MASK, **settings), MASK))
    assert value is None or found[0] == pytest.approx(value, abs=1e-8)
    assert found[1] == pytest.approx(gradient, abs=1e-8)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in RELEASED} == {
        "reinforce": {},
        "gpg": {},
        "ppo": {"eps": 0.2},
        "dual-clip-ppo": {"eps": 0.2, "bound": 3.0},
        "grpo": {"eps": 0.2},
        "dapo": {"eps_low": 0.2, "eps_high": 0.28},
        "dr-grpo": {"eps": 0.2},
        "trl-bnpo": {"eps": 0.2},
    }


@pytest.mark.parametrize("name", RELEASED)
def test_on_policy_gradient_is_minus_the_advantage_and_padding_has_none(name: str) -> None:
    x = torch.zeros(3, 4, dtype=F64, requires_grad=True)
    x_padded = torch.where(MASK.bool(), x, torch.nan)
    (grad,) = torch.autograd.grad(recipes.get(name)(x_padded, ADV, mask=MASK).sum(), x)
    assert torch.equal(grad, -ADV[:, None] * MASK)


@pytest.mark.parametrize("name", ["ppo", "grpo", "dr-grpo", "trl-bnpo", "dual-clip-ppo"])
def test_the_range_is_symmetric(name: str) -> None:
    x = torch.tensor([0.7, 0.9, 1.1, 1.4], dtype=F64).log().requires_grad_()
    for sign, held in ((1.0, [1, 1, 1, 0]), (-1.0, [0, 1, 1, 1])):
        loss = recipes.get(name)(x, torch.full((4,), sign, dtype=F64), eps=0.2)
        assert (torch.autograd.grad(loss.sum(), x)[0] != 0).long().tolist() == held
