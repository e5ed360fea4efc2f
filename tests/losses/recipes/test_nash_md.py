from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import policy, recipes
from diffalign.losses.recipes.nash_md import nash_advantage, opponent_mean

NAN = float("nan")


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gradient(loss, *inputs: Tensor, **kwargs: object) -> Tensor:
    x = inputs[0].detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, *inputs[1:], **kwargs).sum(), x)[0]


F64 = torch.float64


def test_advantage_by_hand() -> None:
    win, r = torch.tensor([0.75, 0.2], dtype=F64), torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=F64)
    want = torch.tensor([[0.15, 0.45], [-0.35, -0.3]], dtype=F64)
    assert torch.allclose(nash_advantage(win, r), want, atol=1e-12)
    assert torch.allclose(nash_advantage(win, r[:, 0], tau=0.5), torch.tensor([-0.25, -0.55], dtype=F64), atol=1e-12)


def test_a_tie_with_the_reference_teaches_nothing() -> None:
    x = torch.randn(3, 4, dtype=F64, requires_grad=True)
    adv = nash_advantage(torch.full((3,), 0.5, dtype=F64), torch.zeros(3, 4, dtype=F64))
    (grad,) = torch.autograd.grad(policy.reinforce(x, adv).sum(), x)
    assert (grad == 0).all()


def test_exchanging_the_two_turns_the_reward_part() -> None:
    win, none = torch.tensor([0.9, 0.3], dtype=F64), torch.zeros(2, 3, dtype=F64)
    assert torch.allclose(nash_advantage(1 - win, none), -nash_advantage(win, none), atol=1e-12)


def test_padding_is_dropped_and_nothing_learns() -> None:
    r = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    adv = nash_advantage(torch.tensor([0.75], requires_grad=True), r, mask=torch.tensor([[1, 0]]))
    assert adv[0, 1] == 0 and adv[0, 0].item() == pytest.approx(0.15) and not adv.requires_grad
    assert nash_advantage(torch.tensor([0.75]).bfloat16(), r.detach().bfloat16()[:, :1]).dtype == torch.float32


def test_opponent_of_a_gaussian_step_is_the_geometric_mixture() -> None:
    mean, ref, x = (torch.tensor(v, dtype=F64) for v in ([1.0, -2.0], [0.0, 4.0], [0.3, 0.7]))
    assert opponent_mean(mean, ref, mix=0.25).tolist() == pytest.approx([0.75, -0.5])
    assert opponent_mean(mean, ref).tolist() == pytest.approx([0.5, 1.0])

    def log_density(mu: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return -((at - mu) ** 2).sum() / 2

    def blend(at: torch.Tensor) -> torch.Tensor:
        return 0.75 * log_density(mean, at) + 0.25 * log_density(ref, at)

    gap = blend(x) - blend(torch.zeros(2, dtype=F64))
    opponent = opponent_mean(mean, ref, mix=0.25)
    assert gap.item() == pytest.approx((log_density(opponent, x) - log_density(opponent, 0 * x)).item())


def test_ends_of_the_mixture() -> None:
    mean, ref = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    assert torch.equal(opponent_mean(mean, ref, mix=0.0), mean.detach())
    assert torch.equal(opponent_mean(mean, ref, mix=1.0), ref.detach())
    assert not opponent_mean(mean, ref).requires_grad
    assert opponent_mean(mean.detach().half(), ref.detach().half()).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    r = torch.zeros(2, 3)
    for call, words in [
        (lambda: nash_advantage(torch.tensor([1.2, 0.1]), r), "win"),
        (lambda: nash_advantage(torch.tensor([math.nan, 0.1]), r), "win"),
        (lambda: nash_advantage(torch.zeros(3), r), r"\(3,\)"),
        (lambda: nash_advantage(torch.zeros(2), r.long()), "floating"),
        (lambda: nash_advantage(torch.zeros(2), r, tau=-0.1), "tau"),
        (lambda: opponent_mean(r, r, mix=1.1), "mix"),
        (lambda: opponent_mean(r, r[:1]), "shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_nash_md() -> None:
    nash = recipes.get("nash-md")
    assert dict(nash.defaults) == {"tau": 0.1}
    x, r, win = f64([0.5, -0.2, NAN]), f64([2.0, -1.0, NAN]), f64(0.7)
    mask = torch.tensor([[1, 1, 0]])
    assert nash(x, r, win, mask=mask)[0].tolist() == pytest.approx([0.0, 0.3 * 0.2, 0.0])
    assert gradient(nash, x, r, win, mask=mask)[0].tolist() == pytest.approx([0.0, -0.3, 0.0])
    assert gradient(nash, x, 0 * r, f64(0.5), mask=mask).abs().max() == 0
    assert nash(x, r, win, tau=0.5, mask=mask)[0].tolist() == pytest.approx([0.4, 0.14, 0.0])
