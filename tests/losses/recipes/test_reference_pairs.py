"""One node per row of the ledger; expected numbers are the papers' formulas, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes
from diffalign.losses.recipes.reference_pairs import anchor_sign

F64 = torch.float64


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def lost(z: float) -> float:
    return math.log1p(math.exp(-z))


def test_seppo() -> None:
    """beta 5000: margins 5000 (1e-4 - 2e-4) = -.5 against a loser, 5000 (1e-4 + 2e-4) = 1.5 beside a winner."""
    delta = vector(1e-4, 1e-4).requires_grad_()
    made, sign = vector(2e-4, 2e-4).requires_grad_(), vector(1, -1).requires_grad_()
    loss = recipes.get("seppo")(delta, made, sign)
    assert loss.tolist() == pytest.approx([lost(-0.5), lost(1.5)], abs=1e-12)
    loss.sum().backward()
    assert made.grad[0] > 0 > made.grad[1] and (delta.grad < 0).all() and sign.grad is None


def test_the_sign_says_who_denoises_better() -> None:
    error = vector(0.1, 0.3, 0.2).requires_grad_()
    sign = anchor_sign(error, vector(0.2, 0.2, 0.2).requires_grad_())
    assert sign.tolist() == [1, -1, -1] and not sign.requires_grad
    assert anchor_sign(error.detach().half(), error.detach().half()).dtype == torch.float32


def test_rpo_harmonic() -> None:
    """k = 2 (.3 - .05) = .5; the photo is preferred with p = .6, and its error .2 is added."""
    real, made, error = vector(0.3).requires_grad_(), vector(0.05), vector(0.2).requires_grad_()
    p = vector(0.6).requires_grad_()
    loss = recipes.get("rpo-harmonic")(real, made, error, p)
    assert loss.item() == pytest.approx(0.2 + 0.6 * lost(0.5) + 0.4 * lost(-0.5), abs=1e-12)
    loss.sum().backward()
    assert p.grad is None and error.grad.item() == 1
    assert real.grad.item() == pytest.approx(2 * (1 / (1 + math.exp(-0.5)) - 0.6), abs=1e-12)
    sure = recipes.get("rpo-harmonic")(real, made, vector(0), vector(1))
    assert sure.item() == pytest.approx(lost(0.5), abs=1e-12)


def test_bad_input_is_refused() -> None:
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="sign"):
        recipes.get("seppo")(x, x, x[:1])
    with pytest.raises(ValueError, match="error_ref"):
        anchor_sign(x, x[:1])
    with pytest.raises(ValueError, match="beta"):
        recipes.get("seppo")(x, x, x, beta=0.0)
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="p must be in"):
            recipes.get("rpo-harmonic")(x, x, x, torch.full((2,), p))
    with pytest.raises(ValueError, match="error_real"):
        recipes.get("rpo-harmonic")(x, x, x[:1], x)
    with pytest.raises(ValueError, match="floating"):
        recipes.get("rpo-harmonic")(x, x, x.long(), x)
