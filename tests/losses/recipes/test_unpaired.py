"""One node per row of the ledger; expected numbers are the papers' formulas, worked out by hand in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import log_ratio, recipes
from diffalign.losses.common import empty_moments

F64 = torch.float64


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def test_bco() -> None:
    """beta .1; the shift is the running mean .0667, then .22; a disliked sample weighs .9/.1 = 9, or .5 at least."""
    bco = recipes.get("bco")
    first = bco(vector(3, -2, 1), torch.tensor([True, False, True]), empty_moments())
    assert first.loss.tolist() == pytest.approx([0.583270686725648, 0.5686765228559746, 0.6766193963526026], abs=1e-12)
    assert first.state.mean.item() == pytest.approx(0.2 / 3, abs=1e-12)
    second = bco(vector(5, 4), torch.tensor([False, True]), first.state, prompt_prob=vector(0.9, 0.3))
    assert second.loss.tolist() == pytest.approx([7.586238002043119, 0.6071917248407819], abs=1e-12)
    assert second.state.mean.item() == pytest.approx(0.22, abs=1e-12) and first.state.n == 3
    bounds = bco(vector(0, 0), torch.tensor([False, False]), empty_moments(), prompt_prob=vector(0.99, 0.01))
    assert bounds.loss.tolist() == pytest.approx([10 * math.log(2), 0.5 * math.log(2)], abs=1e-12)


def test_bcos_shift_carries_no_gradient() -> None:
    r = vector(3, -2).requires_grad_()
    loss, state = recipes.get("bco")(r, torch.tensor([True, False]), empty_moments())
    loss.sum().backward()
    shift = 0.05
    slopes = [-0.1 / (1 + math.exp(0.3 - shift)), 0.1 / (1 + math.exp(0.2 + shift))]
    assert r.grad.tolist() == pytest.approx(slopes, abs=1e-12)
    assert not state.mean.requires_grad


def test_vpd() -> None:
    """u = .1 (teacher - student) = .1, -.05, .1, .02; class means .025 and .06, shift .0425, then .9 .3 + .1 .0425."""
    vpd = recipes.get("vpd")
    teacher, student = vector(-1, -3, -0.5, -2).requires_grad_(), vector(-2, -2.5, -1.5, -2.2).requires_grad_()
    good = torch.tensor([True, True, False, False])
    loss, shift = vpd(log_ratio(teacher, student), good, None)
    expected = [0.6648104048886941, 0.740466330728272, 0.7223104048886941, 0.6819604604751515]
    assert loss.tolist() == pytest.approx(expected, abs=1e-12)
    assert shift.item() == pytest.approx(0.0425, abs=1e-12)
    loss, shift = vpd(log_ratio(teacher, student), good, torch.tensor(0.3, dtype=F64))
    expected = [0.7840627714260456, 0.8683572657403328, 0.6098127714260457, 0.5740808925128474]
    assert loss.tolist() == pytest.approx(expected, abs=1e-12)
    assert shift.item() == pytest.approx(0.27425, abs=1e-12) and not shift.requires_grad
    loss.sum().backward()
    assert student.grad is None and (teacher.grad[:2] < 0).all() and (teacher.grad[2:] > 0).all()


def test_pmpo() -> None:
    """-.5 (1 + 3 + 2)/3 + .5 (-4) + .3 mean KL (.05 = .25/5 each of five)."""
    r, kl = vector(1, -4, 3, 2, 0), vector(0.1, 0.2, 0.3, 0.0, 0.4)
    accepted = torch.tensor([True, False, True, True, False])
    loss = recipes.get("pmpo")(r, accepted, kl)
    assert loss.mean().item() == pytest.approx(-0.5 * 2 + 0.5 * -2 + 0.3 * 0.2, abs=1e-12)
    assert loss.tolist() == pytest.approx([-5 / 6 + 0.03, -5 + 0.06, -2.5 + 0.09, -5 / 3, 0.12], abs=1e-12)
    tilted = recipes.get("pmpo")(r, accepted, kl, alpha=0.8, kl_coef=2.0)
    assert tilted.mean().item() == pytest.approx(-0.8 * 2 + 0.2 * -2 + 2 * 0.2, abs=1e-12)


def test_pmpo_of_accepted_samples_alone_is_imitation() -> None:
    r = vector(1, -2).requires_grad_()
    loss = recipes.get("pmpo")(r, torch.tensor([True, True]), torch.zeros(2, dtype=F64), alpha=1.0, kl_coef=0.0)
    assert loss.tolist() == [-1, 2]
    rejected = recipes.get("pmpo")(r, torch.tensor([False, False]), torch.zeros(2, dtype=F64), alpha=1.0, kl_coef=0.0)
    assert rejected.abs().max() == 0
    one = recipes.get("pmpo")(r, torch.tensor([True, False]), torch.zeros(2, dtype=F64))
    assert one.tolist() == pytest.approx([-1, -2], abs=1e-12)  # each class of one: half of twice its weight
    half = recipes.get("pmpo")(r, torch.tensor([True, True]), torch.zeros(2, dtype=F64), kl_coef=0.0)
    assert half.mean().item() == pytest.approx(0.25)


def test_pmpo_without_a_kl_is_refused_as_soon_as_a_rejected_sample_counts() -> None:
    zero = torch.zeros(2)
    for alpha in (0.0, 0.5):
        with pytest.raises(ValueError, match="unbounded below"):
            recipes.get("pmpo")(zero, torch.tensor([True, False]), zero, alpha=alpha, kl_coef=0.0)


def test_pmpos_kl_keeps_its_gradient() -> None:
    kl = torch.zeros(2, requires_grad=True)
    recipes.get("pmpo")(torch.zeros(2), torch.tensor([True, False]), kl).sum().backward()
    assert kl.grad.tolist() == pytest.approx([0.3, 0.3])


def test_dapo_direct() -> None:
    """beta .02; values .1, .5, .2 give advantages .4, -.3."""
    r = vector(5, -10)[None].requires_grad_()
    values = vector(0.1, 0.5, 0.2)[None].requires_grad_()
    loss = recipes.get("dapo-direct")(r, values)
    assert loss[0].tolist() == pytest.approx([0.09, 0.01], abs=1e-12)  # (.1 - .4)**2, (-.2 + .3)**2
    loss.sum().backward()
    assert values.grad is None
    assert r.grad[0].tolist() == pytest.approx([2 * 0.02 * -0.3, 2 * 0.02 * 0.1], abs=1e-12)
    best = recipes.get("dapo-direct")(vector(20, -15)[None], values.detach())
    assert best.abs().max() < 1e-24  # at A / beta
    masked = recipes.get("dapo-direct")(vector(5, math.nan)[None], values, mask=torch.tensor([[1, 0]]))
    assert masked[0].tolist() == pytest.approx([0.09, 0], abs=1e-12)


def test_bad_settings_and_shapes_are_refused() -> None:
    x, liked = torch.zeros(2), torch.tensor([True, False])
    for name, args in (("bco", (x, liked, empty_moments())), ("vpd", (x, liked, None))):
        with pytest.raises(ValueError, match="beta"):
            recipes.get(name)(*args, beta=-1.0)
    with pytest.raises(ValueError, match="rate"):
        recipes.get("vpd")(x, liked, None, rate=1.5)
    with pytest.raises(ValueError, match="alpha"):
        recipes.get("pmpo")(x, liked, x, alpha=1.2)
    with pytest.raises(ValueError, match="kl_coef"):
        recipes.get("pmpo")(x, liked, x, kl_coef=-0.1)
    with pytest.raises(ValueError, match="kl"):
        recipes.get("pmpo")(x, liked, torch.zeros(3))
    with pytest.raises(ValueError, match="shape"):
        recipes.get("dapo-direct")(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="beta"):
        recipes.get("dapo-direct")(torch.zeros(1, 2), torch.zeros(1, 3), beta=0.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kto", [0.6420058, 0.82103643, 0.74250025, 0.35617661, 0.42197784, 0.39200107]),
        ("apo-zero-unpaired", [0.61643935, 0.79494608, 0.71627276, 0.37005612, 0.43590311, 0.40599955]),
    ],
    ids=["kto", "apo-zero-unpaired"],
)
def test_released_values(name: str, expected: list[float]) -> None:
    """TRL 1.16.0 trl/trainer/kto_trainer.py, beta .3, weights 1.5 and .8."""
    r = vector(1.2, -0.4, 0.3, -0.5, 0.6, 0.1)
    desirable = torch.tensor([True, True, True, False, False, False])
    kl = (vector(0.5, -0.1, 0.3).requires_grad_(),) if name == "kto" else ()
    loss = recipes.get(name)(r, desirable, *kl, beta=0.3, weight_d=1.5, weight_u=0.8)
    assert loss.tolist() == pytest.approx(expected, abs=1e-8) and not loss.requires_grad
    assert dict(recipes.get(name).defaults) == {"beta": 0.1}
    plain = recipes.get(name)(r, desirable, *kl, beta=0.3)
    assert (plain * torch.where(desirable, 1.5, 0.8)).tolist() == pytest.approx(expected, abs=1e-7)
    with pytest.raises(ValueError, match="beta"):
        recipes.get(name)(r, desirable, *kl, beta=0.0)


def test_ktos_shift_is_never_negative() -> None:
    r, good = vector(1.0), torch.tensor([True])
    negative = recipes.get("kto")(r, good, vector(-3.0, 1.0))
    assert torch.equal(negative, recipes.get("apo-zero-unpaired")(r, good))
