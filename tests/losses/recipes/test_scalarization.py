"""Directions of preference, log-rewards, and a reward against its nuisance, by name."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes import scalarization
from diffalign.losses.recipes.scalarization import near_target, nuisance_correlation

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


F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_near_target() -> None:
    assert torch.allclose(near_target(t(0, 3, 4, 5, 9), target=4.0), t(0, 0.75, 1, 0.75, -0.25))
    assert near_target(torch.tensor([4]), target=4.0).dtype == torch.float32
    with pytest.raises(ValueError, match="target"):
        near_target(t(1), target=0.0)


def test_correlation_by_hand() -> None:
    # deviations (-2, 0, 2) and (-1, -2, 3): 8 / sqrt(8 * 14)
    assert nuisance_correlation(t(1, 3, 5), t(4, 3, 8)).item() == pytest.approx(8 / math.sqrt(112))


def test_correlation_knows_affine_maps() -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert nuisance_correlation(3 * x + 7, x).item() == pytest.approx(1.0)
    assert nuisance_correlation(-0.2 * x + 7, x).item() == pytest.approx(-1.0)
    other = x.flip(1)
    assert nuisance_correlation(x, other).item() == pytest.approx(nuisance_correlation(2 * x - 9, other).item())


def test_unscored_samples_are_left_out_on_either_side() -> None:
    a, b = t(1, 3, 5, math.nan, 7), t(4, 3, 8, 2, math.inf)
    assert torch.equal(nuisance_correlation(a, b), nuisance_correlation(a[:3], b[:3]))


@pytest.mark.parametrize("a", [t(0.1, 0.1, 0.1), t(math.nan, math.nan, math.nan), t(1, math.nan, math.nan)])
def test_no_spread_no_correlation(a: torch.Tensor) -> None:
    assert nuisance_correlation(a, t(1, 2, 4)).item() == 0.0
    assert nuisance_correlation(t(1, 2, 4), a).item() == 0.0


def test_it_is_a_number_to_log() -> None:
    out = nuisance_correlation(t(1, 2).requires_grad_(), t(2, 1))
    assert not out.requires_grad and out.shape == () and out.item() == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="share one shape"):
        nuisance_correlation(t(1), t(1, 2))
