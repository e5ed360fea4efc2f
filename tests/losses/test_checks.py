"""Checks refuse exactly what is outside, name it, and leave tensors on an accelerator unread."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import checks


class Far(torch.Tensor):
    """A tensor that claims to live on an accelerator and cannot be read."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


@pytest.mark.parametrize("good", [1e-50, 0.5, 1e39, torch.tensor([0.1, 2.0]), torch.tensor([3])])
def test_positive_passes(good: float) -> None:
    checks.check_positive(beta=good)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan, torch.tensor([1.0, 0.0]), torch.tensor([math.nan])])
def test_positive_refuses(bad: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive and finite, got"):
        checks.check_positive(alpha=1.0, beta=bad)


@pytest.mark.parametrize("good", [0.0, 1e-50, torch.tensor([0.0, 2.0])])
def test_not_negative_passes(good: float) -> None:
    checks.check_not_negative(weight=good)


@pytest.mark.parametrize("bad", [-1e-50, math.inf, math.nan, torch.tensor([1.0, -0.1])])
def test_not_negative_refuses(bad: float) -> None:
    with pytest.raises(ValueError, match="weight must be finite and not negative, got"):
        checks.check_not_negative(weight=bad)


@pytest.mark.parametrize("good", [0.0, 1.0, torch.tensor([0.0, 0.3, 1.0])])
def test_closed_probability_passes(good: float) -> None:
    checks.check_probability(label=good)


@pytest.mark.parametrize("bad", [-1e-9, 1 + 1e-9, math.nan, torch.tensor([0.5, 1.1]), torch.tensor([-0.1])])
def test_closed_probability_refuses(bad: float) -> None:
    with pytest.raises(ValueError, match=r"label must be in \[0, 1\], got"):
        checks.check_probability(label=bad)


@pytest.mark.parametrize("bad", [0.0, 1.0, torch.tensor([0.5, 1.0]), torch.tensor([0.0])])
def test_open_probability_refuses_its_ends(bad: float) -> None:
    checks.check_probability(level=0.5, open_ends=True)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got"):
        checks.check_probability(level=bad, open_ends=True)


def test_integers_are_no_log_probs() -> None:
    checks.check_floating(logp=torch.zeros(2, dtype=torch.bfloat16), ref=torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="ref must be of a floating type, got torch.int64"):
        checks.check_floating(logp=torch.zeros(2), ref=torch.zeros(2, dtype=torch.int64))


def test_shapes_are_compared_by_name() -> None:
    checks.check_same_shape(a=torch.zeros(2, 3), b=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"a \(2, 3\), b \(3, 2\)"):
        checks.check_same_shape(a=torch.zeros(2, 3), b=torch.zeros(3, 2))


def test_a_mask_needs_a_valid_entry() -> None:
    checks.check_any_valid(None)
    checks.check_any_valid(torch.tensor([[0, 0], [0, 1]]))
    for mask in (torch.zeros(2, 2), torch.zeros(0, 2)):
        with pytest.raises(ValueError, match="no valid entry"):
            checks.check_any_valid(mask)


def test_groups_have_two_axes_and_a_sample() -> None:
    checks.check_groups(rewards=torch.zeros(1, 1), mask=torch.ones(1, 1))
    for bad in (torch.zeros(3), torch.zeros(2, 0), torch.zeros(0, 2)):
        with pytest.raises(ValueError, match=r"rewards must have shape \(B, G\)"):
            checks.check_groups(rewards=bad)
    with pytest.raises(ValueError, match="share one shape"):
        checks.check_groups(rewards=torch.zeros(2, 2), mask=torch.ones(2, 3))


def test_what_lies_on_an_accelerator_is_not_read() -> None:
    far = torch.tensor([-5.0, math.nan]).as_subclass(Far)
    assert checks.readable(-5.0) and checks.readable(torch.zeros(1)) and not checks.readable(far)
    checks.check_positive(beta=far)
    checks.check_not_negative(beta=far)
    checks.check_probability(beta=far)
    checks.check_any_valid(torch.zeros(2).as_subclass(Far))
