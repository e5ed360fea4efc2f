from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import sft

D = torch.float64
TERMS = [sft.nll, sft.logsigmoid, sft.chi2, sft.hellinger, sft.exp]


def slope(term, at: float) -> float:
    u = torch.tensor([at], dtype=D, requires_grad=True)
    return torch.autograd.grad(term(u).sum(), u)[0].item()


def test_values_by_hand() -> None:
    u = torch.tensor([0.5, -0.5, 3.0], dtype=D)
    assert sft.nll(u).tolist() == [-0.5, 0.5, -3.0]
    assert sft.logsigmoid(u).tolist() == pytest.approx([0.474076984, 0.974076984, 0.048587352])
    assert sft.chi2(u).tolist() == pytest.approx([-0.4375, 0.5625, -0.75])
    assert sft.hellinger(u).tolist() == pytest.approx([-1 / 3, 1.0, -0.75])
    assert sft.exp(u).tolist() == pytest.approx([math.exp(-0.5), math.exp(0.5), math.exp(-3)])


@pytest.mark.parametrize("term", [sft.nll, sft.chi2, sft.hellinger, sft.exp])
def test_the_first_step_is_that_of_fine_tuning(term) -> None:
    assert slope(term, 0.0) == pytest.approx(-1)


def test_logsigmoid_starts_at_half_the_slope_and_lets_go() -> None:
    assert slope(sft.logsigmoid, 0.0) == pytest.approx(-0.5) and abs(slope(sft.logsigmoid, 30.0)) < 1e-12


@pytest.mark.parametrize(
    ("term", "generator", "domain"),
    [
        (sft.chi2, lambda x: (x - 1) ** 2, (0.05, 6.0)),
        (sft.hellinger, lambda x: (x**0.5 - 1) ** 2, (1e-6, 400.0)),
        (sft.exp, lambda x: x * math.log(x), (1e-6, 30.0)),
    ],
)
def test_terms_are_convex_conjugates(term, generator, domain: tuple[float, float]) -> None:
    """f*(t) = sup over x of t x - f(x), by search; exp is that of x log x at t = 1 - u."""
    low, high = domain
    grid = [low * (high / low) ** (i / 40000) for i in range(40001)]
    for u in (0.3, -0.4, 1.2):
        t = 1 - u if term is sft.exp else -u
        best = max(t * x - generator(x) for x in grid)
        assert term(torch.tensor([u], dtype=D)).item() == pytest.approx(best, abs=1e-5)


def test_chi2_turns_at_two() -> None:
    assert slope(sft.chi2, 2.0) == 0 and slope(sft.chi2, 3.0) > 0 and sft.chi2(torch.tensor([2.0])).item() == -1


def test_hellinger_saturates_and_is_held_near_its_pole() -> None:
    assert sft.hellinger(torch.tensor([1e6], dtype=D)).item() == pytest.approx(-1, abs=1e-5)
    assert slope(sft.hellinger, -0.8) == pytest.approx(-25) and slope(sft.hellinger, -50.0) == pytest.approx(-100)
    assert sft.hellinger(torch.tensor([-1.9], dtype=D)).item() == pytest.approx(9 + 100)
    assert sft.hellinger(torch.tensor([-1.5], dtype=D), floor=-0.5).item() == pytest.approx(1 + 4)
    assert sft.hellinger(torch.tensor([-2.0]), floor=0.0).item() == 2
    for floor in (-1.0, 0.1):
        with pytest.raises(ValueError, match="floor"):
            sft.hellinger(torch.zeros(1), floor=floor)


def test_exp_is_held_far_out() -> None:
    assert sft.exp(torch.tensor([-1e4, -20.0, -19.0], dtype=D)).log().tolist() == pytest.approx([20, 20, 19])
    assert slope(sft.exp, -1e4) == 0 and slope(lambda u: sft.exp(u, max_exponent=5.0), -6.0) == 0
    with pytest.raises(ValueError, match="max_exponent"):
        sft.exp(torch.zeros(1), max_exponent=0)


@pytest.mark.parametrize("term", TERMS)
def test_every_term_keeps_its_contract(term) -> None:
    u = torch.tensor([[0.3, -0.6], [1.7, 4.0]], dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(term, u) and term(u).shape == u.shape
    for dtype in (torch.float16, torch.bfloat16):
        far = torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=dtype, requires_grad=True)
        out = term(far)
        assert out.dtype == torch.float32 and torch.isfinite(out).all()
        assert torch.isfinite(torch.autograd.grad(out.sum(), far)[0]).all()
    with pytest.raises(ValueError, match="floating"):
        term(torch.zeros(2, dtype=torch.long))
