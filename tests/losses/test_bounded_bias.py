from __future__ import annotations

import pytest
import torch

from diffalign.losses.bounded_bias import bounded_bias, early_bias

F64 = torch.float64
NAN = float("nan")


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
