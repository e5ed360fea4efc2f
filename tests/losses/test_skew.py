from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses.skew import skew_score

D = torch.float64


def test_value_by_hand() -> None:
    v_i = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=D)
    v_j = torch.tensor([7.0, 11.0, 13.0, 17.0], dtype=D)
    assert skew_score(v_i, v_j).item() == (11 - 14) + (51 - 65)
    assert skew_score(v_i, v_j, gate=torch.tensor([2.0, 0.5], dtype=D)).item() == -6 - 7


def test_one_gate_for_all_or_one_each() -> None:
    v_i, v_j = torch.randn(2, 3, 5, 4, dtype=D, generator=torch.Generator().manual_seed(0))
    gate = torch.tensor([2.0, 0.5], dtype=D)
    each = skew_score(v_i, v_j, gate=gate.expand(3, 5, 2))
    assert torch.equal(skew_score(v_i, v_j, gate=gate), each) and each.shape == (3, 5)


def test_antisymmetric_and_zero_on_itself() -> None:
    v_i, v_j = torch.randn(2, 5, 6, dtype=D, generator=torch.Generator().manual_seed(0))
    gate = torch.rand(5, 3, dtype=D, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(skew_score(v_i, v_j, gate=gate), -skew_score(v_j, v_i, gate=gate), atol=1e-12)
    assert torch.equal(skew_score(v_i, v_i), torch.zeros(5, dtype=D))


def test_reward_and_constant_are_bradley_terry() -> None:
    reward = torch.tensor([0.3, -1.0], dtype=D)
    v = torch.stack([reward, torch.full_like(reward, 1.5)], 1)
    assert skew_score(v[0], v[1]).item() == pytest.approx(1.5 * 1.3)  # positive: the first is better


def test_three_unit_vectors_beat_each_other_in_a_circle() -> None:
    angle = torch.arange(3, dtype=D) * 2 * math.pi / 3
    v = torch.stack([angle.cos(), angle.sin()], 1)
    scores = skew_score(v, v.roll(-1, 0))
    assert scores.tolist() == pytest.approx([math.sqrt(3) / 2] * 3)


def test_gradients() -> None:
    v = torch.randn(3, 4, 4, dtype=D, generator=torch.Generator().manual_seed(2)).requires_grad_()
    gate = torch.rand(4, 2, dtype=D, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, g: skew_score(a[0], a[1], gate=g), (v, gate))
    assert skew_score(v[0].half(), v[1].half()).dtype == torch.float32
    assert skew_score(v[0], v[1], gate=gate.half()).dtype == D


def test_bad_input_is_refused() -> None:
    for shape in ((2, 3), (2, 0), ()):
        with pytest.raises(ValueError, match="even"):
            skew_score(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="one shape"):
        skew_score(torch.zeros(2, 4), torch.zeros(4))
    with pytest.raises(ValueError, match="gate"):
        skew_score(torch.zeros(2, 4), torch.zeros(2, 4), gate=torch.zeros(4))
    with pytest.raises(ValueError, match="floating"):
        skew_score(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4))
