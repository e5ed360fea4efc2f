"""Terms of a dense reward by hand; potentials telescope; padding and gradients stay out."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import dense_rewards as dense

F64 = torch.float64
NAN = math.nan


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
X = t([1, -2, 3, NAN], [0.5, 4, -1, 2], [NAN, NAN, math.inf, 1], [7, 9, 9, NAN])
PHI = t([5, 3, 4, 1, NAN], [2, 2, 0, 6, 1], [NAN, NAN, NAN, NAN, NAN], [1, 4, 0, 0, 0])


def test_the_terminal_reward_stands_at_the_last_step() -> None:
    out = dense.terminal_reward(t(12, -3, NAN, 5), MASK, clip=10.0)
    assert out.tolist() == [[0, 0, 10, 0], [0, 0, 0, -3], [0, 0, 0, 0], [5, 0, 0, 0]]
    assert dense.terminal_reward(t(12, -13, 0, 5), MASK)[:2].sum(1).tolist() == [12, -13]
    assert dense.terminal_reward(t(-12.0), torch.ones(1, 1), clip=10.0).item() == -10
    assert dense.terminal_reward(t(12.0), torch.ones(1, 1), clip=0.5).item() == 0.5
    assert dense.terminal_reward(t(1.5), torch.tensor([[1, 0, 1, 0]])).tolist() == [[0, 0, 1.5, 0]]


def test_a_sample_that_was_not_scored_stays_so() -> None:
    out = dense.terminal_reward(t(NAN, 1, 1, 1), MASK)
    assert out[0].isnan().tolist() == [False, False, True, False] and not out[1:].isnan().any()


def test_steps_are_clipped_after_scaling() -> None:
    out = dense.step_reward(X, MASK, coef=0.5, clip=1.2)
    assert out.tolist() == [[0.5, -1, 1.2, 0], [0.25, 1.2, -0.5, 1], [0, 0, 0, 0], [1.2, 0, 0, 0]]
    assert dense.step_reward(-X, MASK, coef=0.5, clip=1.2)[0, 2] == -1.2
    assert dense.step_reward(X, MASK)[1].tolist() == [0.5, 4, -1, 2]


def test_unclipped_steps_add_up_to_the_implicit_reward() -> None:
    assert torch.allclose(dense.step_reward(X, MASK, coef=0.05).sum(1), 0.05 * t(2, 5.5, 0, 7))


def test_kl() -> None:
    out = dense.kl_reward(X, MASK, coef=0.1)
    assert torch.allclose(out, t([-0.1, 0.2, -0.3, 0], [-0.05, -0.4, 0.1, -0.2], [0] * 4, [-0.7, 0, 0, 0]))
    assert dense.kl_reward(X, MASK, coef=0.0).abs().sum() == 0


def test_potential_by_hand() -> None:
    out = dense.potential_reward(PHI, MASK, gamma=0.5)
    assert out.tolist() == [[-3.5, -1, -3.5, 0], [-1, -2, 3, -5.5], [0] * 4, [1, 0, 0, 0]]
    assert dense.potential_reward(PHI, MASK)[1].tolist() == [0, -2, 6, -5]


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_potentials_telescope(gamma: float) -> None:
    out = dense.potential_reward(PHI, MASK, gamma=gamma)
    discount = gamma ** torch.arange(4, dtype=F64)
    ends = t(gamma**3 * 1 - 5, gamma**4 * 1 - 2, 0, gamma * 4 - 1)
    assert torch.allclose((out * discount).sum(1), ends)


def test_a_potential_that_ends_at_0_keeps_the_order_of_samples() -> None:
    phi = t([3, 8, -1, 0], [3, 0, 9, 0])
    total = dense.terminal_reward(t(1.0, 2.0), torch.ones(2, 3)) + dense.potential_reward(phi, torch.ones(2, 3))
    assert torch.allclose(total.sum(1), t(1.0, 2.0) - 3)


@pytest.mark.parametrize("term", ["step", "kl", "potential", "terminal"])
def test_rewards_carry_no_gradient_and_are_wide(term: str) -> None:
    mask = torch.ones(2, 3)
    shape = {"potential": (2, 4), "terminal": (2,)}.get(term, (2, 3))
    values = torch.ones(shape, dtype=torch.bfloat16, requires_grad=True)
    coef = {"coef": 0.1} if term == "kl" else {}
    out = getattr(dense, f"{term}_reward")(values, mask, **coef)
    assert out.dtype == torch.float32 and out.shape == (2, 3) and not out.requires_grad


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: dense.terminal_reward(t(1, 2), torch.ones(3, 2)), r"terminal must have shape \(3,\), got \(2,\)"),
        (lambda: dense.terminal_reward(t(1), torch.ones(1)), r"\(B, T\), got \(1,\)"),
        (lambda: dense.terminal_reward(t(1), torch.ones(1, 1), clip=0.0), "clip must be positive"),
        (lambda: dense.step_reward(X, MASK[:, :2]), "shape of its values"),
        (lambda: dense.step_reward(X, MASK, clip=-1.0), "clip must be positive"),
        (lambda: dense.step_reward(X[0], MASK[0]), r"\(B, T\)"),
        (lambda: dense.kl_reward(X, MASK, coef=-0.1), "coef must be"),
        (lambda: dense.kl_reward(X[0], MASK[0], coef=0.1), r"\(B, T\)"),
        (lambda: dense.potential_reward(X, MASK), r"\(B, T \+ 1\)"),
        (lambda: dense.potential_reward(PHI, MASK, gamma=1.1), "gamma <= 1"),
        (lambda: dense.potential_reward(PHI, MASK, gamma=0.0), "gamma must be positive"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
