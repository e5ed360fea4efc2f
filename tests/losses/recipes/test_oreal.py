from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes
from diffalign.losses.recipes.oreal import oreal_advantage, outcome_weights, running_mean

NAN = float("nan")


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gradient(loss, *inputs: object, **kwargs: object) -> Tensor:
    x = inputs[0].detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, *inputs[1:], **kwargs).sum(), x)[0]


F64 = torch.float64


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_running_mean() -> None:
    scores = torch.tensor([[1.0, 3.0, -1.0], [4.0, float("nan"), 2.0]], dtype=F64)
    mask = torch.tensor([[1, 1, 1], [1, 0, 1]])
    assert running_mean(scores, mask).tolist() == [[1.0, 2.0, 1.0], [4.0, 0.0, 3.0]]
    assert running_mean(scores[:1]).tolist() == [[1.0, 2.0, 1.0]]
    assert running_mean(scores, torch.tensor([[0, 0, 1], [0, 0, 0]])).tolist() == [[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]


def test_weights_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0, -10.0], [1.0, 3.0, -10.0]], dtype=F64)
    p = [sigmoid(1.0), sigmoid(2.0), sigmoid(-2.0)]
    out = outcome_weights(scores, torch.tensor([True, False]))
    assert out[0].tolist() == pytest.approx([2 * p[0] - 1, 2 * p[1] - 1, 0.0])
    assert out[1].tolist() == pytest.approx([0.0, 0.0, 1 - 2 * p[2]])
    high = outcome_weights(scores, torch.tensor([True, False]), threshold=0.75)
    assert high[0].tolist() == pytest.approx([0.0, (p[1] - 0.75) / 0.25, 0.0], abs=1e-12)
    low = outcome_weights(scores, torch.tensor([True, False]), threshold=0.0)
    assert low[0].tolist() == pytest.approx(p) and low[1].tolist() == pytest.approx([1 - q for q in p])


def test_an_undecided_token_weighs_nothing() -> None:
    assert (outcome_weights(torch.zeros(2, 3), torch.tensor([True, False])) == 0).all()
    sure = outcome_weights(torch.full((2, 3), 1e4), torch.tensor([True, False]))
    assert sure.tolist() == [[1.0] * 3, [0.0] * 3]
    assert outcome_weights(torch.full((1, 1), 1e4), torch.tensor([True])).tolist() == [[1.0]]


def test_masked_tokens_weigh_nothing_and_nothing_learns() -> None:
    scores = torch.tensor([[2.0, float("nan"), 2.0]], requires_grad=True)
    out = outcome_weights(scores, torch.tensor([True]), mask=torch.tensor([[1, 0, 1]]), threshold=0.0)
    assert out[0].tolist() == pytest.approx([sigmoid(2.0), 0.0, sigmoid(2.0)]) and not out.requires_grad
    assert outcome_weights(torch.ones(1, 2).bfloat16(), torch.tensor([True])).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        running_mean(torch.zeros(3))
    with pytest.raises(ValueError, match="positive"):
        outcome_weights(torch.zeros(2, 3), torch.tensor([True]))
    for threshold in (1.0, -0.1):
        with pytest.raises(ValueError, match="threshold"):
            outcome_weights(torch.zeros(2, 3), torch.tensor([True, False]), threshold=threshold)
    with pytest.raises(ValueError, match="mask"):
        outcome_weights(torch.zeros(2, 3), torch.tensor([True, False]), mask=torch.ones(2, 2))


def test_oreal() -> None:
    oreal = recipes.get("oreal")
    assert dict(oreal.defaults) == {"negative": 0.5, "kl_coef": 0.01}
    logp, ref = f64([-1.0, -2.0, NAN], [-0.5, -1.0, -3.0]), f64([-1.2, -2.0, NAN], [-0.5, -0.5, -3.0])
    mask, adv = torch.tensor([[1, 1, 0], [1, 1, 1]]), f64(2.0, -4.0)
    positive, scores = torch.tensor([True, False]), f64([1.0, 3.0, NAN], [-1.0, -1.0, 5.0])

    def weight(mean: float) -> float:
        return max(2 / (1 + math.exp(-mean)) - 1, 0.0)

    def kl(r: float) -> float:
        return 0.01 * (math.exp(-r) + r - 1) / 5

    good = [2 * weight(1.0) * 1.0 / 2 + kl(0.2), 2 * weight(2.0) * 2.0 / 2, 0.0]
    bad = [4 * weight(1.0) * 0.5 / 3, 4 * weight(1.0) * 0.5 / 3 + kl(-0.5), 4 * weight(-1.0) * 0.5 / 3]
    out = oreal(logp, ref, adv, positive, scores, mask=mask)
    assert out.tolist() == [pytest.approx(good), pytest.approx(bad)]
    plain = oreal(logp, ref, adv, positive, None, mask=mask, kl_coef=0.0, negative=1.0)
    assert plain.tolist() == [pytest.approx([1.0, 2.0, 0.0]), pytest.approx([4 / 3] * 3)]
    full = oreal(logp[1:], ref[1:], adv[1:], positive[1:], None, kl_coef=0.0)
    assert full[0].tolist() == pytest.approx([2 / 3] * 3)


def test_oreal_imitates_the_good_and_pushes_off_the_bad() -> None:
    oreal, zeros = recipes.get("oreal"), torch.zeros(2, 2, dtype=F64)
    grad = gradient(oreal, zeros, zeros, f64(2.0, -4.0), torch.tensor([True, False]), None)
    assert grad.tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    assert gradient(oreal, zeros, zeros, f64(2.0, -4.0), torch.tensor([True, False]), zeros).abs().max() == 0
    one = oreal(zeros[:1, :1] - 1, zeros[:1, :1], f64(2.0), torch.tensor([True]), None)
    assert one.item() == pytest.approx(2.0 + 0.01 * (math.e - 2))
    assert oreal(zeros[:1, :1], zeros[:1, :1], f64(-4.0), torch.tensor([False]), None).item() == pytest.approx(2.0)
    live = f64(2.0, -4.0).requires_grad_()
    assert not oreal(zeros, zeros, live, torch.tensor([True, False]), None).requires_grad
    adv = oreal_advantage(f64([1.0, 0.0, 0.0, 1.0, 1.0]))
    assert adv[0].tolist() == pytest.approx([0.5, -0.75, -0.75, 0.5, 0.5])
    held = oreal_advantage(f64([1.0, 0.0, 9.0]), mask=torch.tensor([[1, 1, 0]]))
    assert held[0].tolist() == pytest.approx([1.0, -1.0, 0.0])
    ref = torch.zeros(2, 2, dtype=F64, requires_grad=True)
    assert not oreal(zeros, ref, f64(2.0, -4.0), torch.tensor([True, False]), None).requires_grad
