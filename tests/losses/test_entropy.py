from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import entropy as E

F64 = torch.float64
NAN = float("nan")
H = torch.tensor([[0.5, 2.5, 1.0], [0.5, 4.5, NAN]], dtype=F64)
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])
UNIT = [0.0, 0.5, 0.125, 0.0, 1.0]


def valid(x: Tensor) -> list[float]:
    return x[MASK.bool()].tolist()


def test_unit_entropy_spans_the_batch() -> None:
    assert valid(E.unit_entropy(H, mask=MASK)) == UNIT and E.unit_entropy(H, mask=MASK)[1, 2] == 0
    assert (E.unit_entropy(torch.full((2, 3), 0.7)) == 0).all()


def test_gain_is_one_on_average() -> None:
    weight = [math.exp(-2 * h) for h in UNIT]
    gain = E.confidence_gain(H, k=2.0, mask=MASK)
    assert valid(gain) == pytest.approx([w / (sum(weight) / 5) for w in weight]) and gain[1, 2] == 0
    assert valid(E.confidence_gain(H, mask=MASK))[1] == pytest.approx(
        math.exp(-0.5) / (sum(math.exp(-h) for h in UNIT) / 5)
    )
    assert E.confidence_gain(H[:1], k=0.0).tolist() == [[1.0] * 3]


def test_bonus_looks_one_step_ahead() -> None:
    bonus = E.clarity_bonus(H, k=2.0, mask=MASK)
    assert bonus[0].tolist() == pytest.approx([math.exp(-1.0), math.exp(-0.25), 0.0])
    assert bonus[1].tolist() == pytest.approx([math.exp(-2.0), 0.0, 0.0])
    gap = E.clarity_bonus(H, mask=torch.tensor([[1, 0, 1], [1, 1, 0]]))
    assert gap[0].tolist() == pytest.approx([math.exp(-0.125), 0.0, 0.0])
    assert E.clarity_bonus(H, mask=MASK)[0, 0].item() == pytest.approx(math.exp(-0.5))


def test_level_by_hand() -> None:
    entropy = torch.tensor([[1.0, math.e, math.e**2, math.e**5, 0.0, math.e**-1]], dtype=F64)
    mask = torch.tensor([[1, 1, 1, 1, 0, 1]])
    out = E.entropy_level(entropy, quantile=0.5, mask=mask)  # logs -1 0 1 2 5, centre 1
    assert out[0].tolist() == pytest.approx([-0.5, 0.0, 0.25, 1.0, 0.0, -1.0])
    default = E.entropy_level(entropy, mask=mask)  # .8 of 4: the nearest is rank 3, centre 2
    assert default[0].tolist() == pytest.approx([-2 / 3, -1 / 3, 0.0, 1.0, 0.0, -1.0])
    floored = E.entropy_level(torch.tensor([[0.0, 1.0]], dtype=F64), quantile=1.0, floor=1e-4)
    assert floored[0].tolist() == pytest.approx([-1.0, 0.0])
    three = E.entropy_level(torch.tensor([[0.0, 1e-8, 1e-4, 1.0]], dtype=F64), quantile=1.0)
    assert three[0].tolist() == pytest.approx([-1.0, -1.0, -0.5, 0.0])


def test_level_of_equal_entropies_is_nothing() -> None:
    assert (E.entropy_level(torch.full((2, 3), 0.4)) == 0).all()
    out = E.entropy_level(torch.tensor([[1.0, 1.0, 1.0, 0.5]]))
    assert out.tolist() == [[0.0, 0.0, 0.0, -1.0]]  # the low side does reach -1
    high = E.entropy_level(torch.tensor([[1.0, 1.0, 1.0, 1.5]]), quantile=0.0)
    assert high.tolist() == [[0.0, 0.0, 0.0, 1.0]]


def test_redistribution_by_hand() -> None:
    rho = torch.tensor([[0.8, 1.0, 1.3, 0.8, 1.0, 1.3]], dtype=F64)
    level = torch.tensor([[0.5, 0.5, 0.5, -0.4, -0.4, -0.4]], dtype=F64)
    out = E.redistribute(torch.tensor([2.0]), rho.log(), level)
    assert out[0].tolist() == pytest.approx([3.0, 2.0, 3.0, 2.0, 1.2, 2.0])
    wide = E.redistribute(torch.tensor([2.0]), rho.log(), level, eps_low=0.5, eps_high=0.7, strength=0.5)
    assert wide[0].tolist() == pytest.approx([2.0, 2.0, 2.0, 1.6, 1.6, 1.6])
    one = torch.tensor([[0.85, 1.15]], dtype=F64).log()
    narrow = E.redistribute(torch.tensor([1.0]), one, torch.ones(1, 2), eps_low=0.4, eps_high=0.1)
    assert narrow.tolist() == [[1.0, 2.0]]
    assert E.redistribute(torch.tensor([1.0]), rho.log(), 0 * level).tolist() == [[1.0] * 6]
    edge = torch.tensor([[math.log(0.9), math.log(1.1)]], dtype=F64) + torch.tensor([[-1e-9, 1e-9]], dtype=F64)
    assert E.redistribute(torch.tensor([1.0]), edge, torch.ones(1, 2)).tolist() == [[2.0, 2.0]]
    assert E.redistribute(torch.tensor([1.0]), -edge, torch.ones(1, 2)).shape == (1, 2)
    inside = edge + torch.tensor([[2e-9, -2e-9]], dtype=F64)
    assert E.redistribute(torch.tensor([1.0]), inside, torch.ones(1, 2)).tolist() == [[1.0, 1.0]]
    zero = E.redistribute(torch.tensor([1.0]), inside, torch.zeros(1, 2), strength=9.0)
    assert zero.tolist() == [[1.0, 1.0]]


def test_ranges_only_widen() -> None:
    level = torch.tensor([[0.5, -0.25, 0.0]], dtype=F64)
    low, high = E.adaptive_range(level)
    assert low[0].tolist() == pytest.approx([0.2, 0.25, 0.2]) and high[0].tolist() == pytest.approx([0.3, 0.2, 0.2])
    low, high = E.adaptive_range(level, eps_low=0.1, eps_high=0.3, strength=2.0)
    assert low[0].tolist() == pytest.approx([0.1, 0.15, 0.1]) and high[0].tolist() == pytest.approx([0.6, 0.3, 0.3])


def test_nothing_learns_and_results_are_wide() -> None:
    h = torch.rand(2, 3, requires_grad=True)
    outs = [E.unit_entropy(h), E.confidence_gain(h), E.clarity_bonus(h), E.entropy_level(h), *E.adaptive_range(h)]
    outs.append(E.redistribute(torch.ones(2, requires_grad=True), h, h))
    assert not any(out.requires_grad for out in outs)
    half = h.detach().bfloat16()
    outs = [E.unit_entropy(half), E.entropy_level(half), E.adaptive_range(half)[0]]
    outs.append(E.redistribute(torch.ones(2).bfloat16(), half, half))
    assert all(out.dtype == torch.float32 for out in outs)


def test_bad_input_is_refused() -> None:
    ok = torch.ones(2, 3)
    for call, words in [
        (lambda: E.unit_entropy(torch.ones(3)), r"\(B, T\)"),
        (lambda: E.unit_entropy(ok, mask=torch.zeros(2, 3)), "no valid entry"),
        (lambda: E.confidence_gain(ok, k=-1.0), "k must"),
        (lambda: E.clarity_bonus(ok, k=-1.0), "k must"),
        (lambda: E.entropy_level(ok, quantile=1.1), "quantile"),
        (lambda: E.entropy_level(ok, quantile=-0.1), "quantile"),
        (lambda: E.entropy_level(ok, mask=torch.ones(2, 2)), "mask"),
        (lambda: E.redistribute(torch.ones(2), ok, ok[:, :2]), "level"),
        (lambda: E.redistribute(torch.ones(2), ok, ok, strength=-1.0), "strength"),
        (lambda: E.adaptive_range(ok, eps_low=-0.1), "eps_low"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
