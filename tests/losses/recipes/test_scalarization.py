"""Directions of preference, log-rewards, and a reward against its nuisance, by name."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes import scalarization

F64 = torch.float64
approx = pytest.approx


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_long_way() -> None:
    out = recipes.get("long-way")(t(1, 3, 5), t(4, 3, 8), limit=4.0, spread=2.0)
    assert out.reward.tolist() == approx([1, 3.5, 3])
    assert out.nuisance_only.tolist() == approx([1, 0.75, 0])
    assert out.correlation.item() == approx(8 / math.sqrt(112))
    short = recipes.get("long-way")(t(1), t(78), spread=2.0)
    assert short.reward.tolist() == approx([2]) and short.nuisance_only.tolist() == approx([0.5])
    assert recipes.get("long-way")(t(math.nan), t(78), spread=2.0).reward.isnan().all()
    for bad in ({"limit": 0.0, "spread": 1.0}, {"spread": 0.0}):
        with pytest.raises(ValueError, match="must be positive"):
            recipes.get("long-way")(t(1), t(78), **bad)
    with pytest.raises(ValueError, match="share one shape"):
        recipes.get("long-way")(t(1), t(7, 8), spread=1.0)


R = t([[1, 4, 2]], [[5, 0, 4]])


def test_dpa() -> None:
    out = recipes.get("dpa")(R, t(3, 4))
    assert out.reward.tolist() == [approx([4.6, 2.4, 4.4])]
    assert out.selection.indices.tolist() == [[0]]
    assert recipes.get("dpa")(R, t(4, 3), n=2).selection.indices.tolist() == [[2, 0]]
    assert torch.equal(recipes.get("dpa")(R, t(0, 7)).reward, R[1])
    two = recipes.get("dpa")(R.expand(2, 2, 3), t([1, 0], [0, -2]))
    assert two.reward.tolist() == [[1, 4, 2], [-5, 0, -4]]
    with pytest.raises(ValueError, match="length"):
        recipes.get("dpa")(R, t(0, 0))


def test_mogfn() -> None:
    r = t([2], [8])
    log_reward = recipes.get("mogfn")(r, [0.25, 0.75], exponent=4.0)
    assert log_reward.tolist() == approx([10 * math.log(2)])
    other = scalarization.mogfn_tchebycheff(r, [0.25, 0.75], [4, 9], exponent=4.0)
    assert other.tolist() == [-3]
    forward, backward, log_z = t(-7).requires_grad_(), t(-2).requires_grad_(), t(4).requires_grad_()
    loss = scalarization.mogfn_loss(forward, backward, t(1.5), log_z)
    assert loss.tolist() == [6.25]
    grads = torch.autograd.grad(loss.sum(), (forward, backward, log_z), allow_unused=True)
    assert grads[0].item() == -5 and grads[1] is None and grads[2].item() == -5
    assert scalarization.mogfn_loss(forward, backward, t(1.5) + 3, log_z + 3).tolist() == [6.25]
    for f in (lambda: recipes.get("mogfn")(r, [1, 1], exponent=0.0),
              lambda: scalarization.mogfn_tchebycheff(r, [1, 1], [1, 1], exponent=0.0)):  # fmt: skip
        with pytest.raises(ValueError, match="exponent"):
            f()
    with pytest.raises(ValueError, match="share one shape"):
        scalarization.mogfn_loss(forward, t(1, 2), t(1.5), log_z)
