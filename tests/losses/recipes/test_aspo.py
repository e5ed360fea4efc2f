from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import group_advantage, recipes
from diffalign.losses.recipes.aspo import bounded_bias, early_bias

F64 = torch.float64
NAN = float("nan")


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


R = f64([1.0, 2.0, 3.0, 6.0])
STD = math.sqrt(14 / 3) + 1e-6
Z = [-2 / STD, -1 / STD, 0.0, 3 / STD]


def test_by_hand() -> None:
    adv = torch.tensor([[2.0, -1.0, 0.5, 0.0]], dtype=F64)
    bias = torch.tensor([[5.0, 0.3, -9.0, 1.0]], dtype=F64)
    assert bounded_bias(adv, bias)[0].tolist() == pytest.approx([3.4, -0.7, 0.15, 0.0])
    assert bounded_bias(adv, bias, k=0.2)[0].tolist() == pytest.approx([2.4, -0.8, 0.4, 0.0])
    some = torch.tensor([[1, 0, 0, 1]])
    assert bounded_bias(adv, bias, eligible=some)[0].tolist() == pytest.approx([3.4, -1.0, 0.5, 0.0])
    assert torch.equal(bounded_bias(adv, bias, k=0.0), adv)
    assert bounded_bias(adv[0], torch.tensor([0.1, 0.1, 0.1, 0.1]))[:2].tolist() == pytest.approx([2.1, -0.9])


def test_no_sign_ever_turns() -> None:
    torch.manual_seed(0)
    adv, bias = torch.randn(50, 6), 100 * torch.randn(50, 6)
    assert torch.equal(bounded_bias(adv, bias).sign(), adv.sign())


def test_a_bias_where_nobody_is_eligible_may_be_nan() -> None:
    adv = torch.tensor([[1.0, 2.0]])
    assert bounded_bias(adv, torch.tensor([[NAN, 0.5]]), eligible=torch.tensor([[0, 1]])).tolist() == [[1.0, 2.5]]


def test_early_bias_by_hand() -> None:
    p = torch.tensor([[2.0, 8.0, 99.0, 5.0]], dtype=F64)
    size = torch.tensor([[10.0, 20.0, 7.0, 60.0]], dtype=F64)
    who = torch.tensor([[1, 1, 0, 1]])
    assert early_bias(p, size, who)[0].tolist() == pytest.approx([0.2, -0.2, 0.0, 0.0], abs=1e-12)
    assert early_bias(p, size, who, delta=1.0)[0].tolist() == pytest.approx([-0.1, 0.1, 0.0, 0.0], abs=1e-12)
    pair = early_bias(p, size, torch.tensor([[1, 0, 0, 1]]), delta=-1.0)
    assert pair[0].tolist() == pytest.approx([1.5 / 35, 0.0, 0.0, -1.5 / 35])


def test_equal_positions_change_nothing_and_an_empty_group_is_nothing() -> None:
    same, size = torch.full((2, 3), 4.0), torch.ones(2, 3)
    assert (early_bias(same, size, torch.ones(2, 3)) == 0).all()
    assert (early_bias(same, size, torch.tensor([[1, 0, 0], [0, 0, 1]])) == 0).all()
    out = early_bias(torch.full((1, 3), NAN), torch.full((1, 3), NAN), torch.zeros(1, 3))
    assert (out == 0).all()


def test_nothing_learns() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    assert not bounded_bias(x, x).requires_grad and not early_bias(x, x, torch.ones(2, 3)).requires_grad
    half = x.detach().bfloat16()
    assert bounded_bias(half, half).dtype == early_bias(half, half, torch.ones(2, 3)).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    ok = torch.ones(2, 3)
    for call, words in [
        (lambda: bounded_bias(ok, ok, k=-0.1), "k must"),
        (lambda: bounded_bias(ok, torch.ones(3)), r"\(3,\)"),
        (lambda: bounded_bias(ok, ok, eligible=torch.ones(2)), "eligible"),
        (lambda: early_bias(ok, ok[:1], ok), "length"),
        (lambda: early_bias(ok[0], ok[0], ok[0]), r"\(B, G\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_aspo() -> None:
    aspo = recipes.get("aspo")
    assert dict(aspo.defaults) == {"delta": -2.0, "k": 0.7}
    position, length = f64([2.0, 6.0, 0.0, 40.0]), f64([10.0, 20.0, 0.0, 90.0])
    who = torch.tensor([[1, 1, 0, 1]])
    out = aspo(R, position, length, who)  # mean position 16, mean length 40: bias .7, .5, -, -1.2
    assert out[0].tolist() == pytest.approx([Z[0] + 0.7 * -Z[0], Z[1] + 0.7 * -Z[1], 0.0, Z[3] - 0.7 * Z[3]])
    mild = aspo(R, position, length, who, delta=-0.1)
    assert mild[0].tolist() == pytest.approx([Z[0] + 0.035, Z[1] + 0.025, 0.0, Z[3] - 0.06])
    assert torch.equal(aspo(R, position, length, who, k=0.0), group_advantage(R))
    assert out[0].sign().tolist() == [-1, -1, 0, 1]
