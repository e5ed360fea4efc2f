from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes
from diffalign.losses.recipes.tspo import subset_log_prob


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gradient(loss, *inputs: Tensor, **kwargs: object) -> Tensor:
    x = inputs[0].detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, *inputs[1:], **kwargs).sum(), x)[0]


F64 = torch.float64
SCORES = torch.tensor([[0.3, -1.2, 0.8, 0.1, -0.4]], dtype=F64)


def rows(n: int, size: int) -> torch.Tensor:
    """All subsets of a size, as bool ``(C, n)``."""
    picks = list(itertools.combinations(range(n), size))
    return torch.stack([torch.zeros(n).index_fill(0, torch.tensor(p, dtype=torch.long), 1).bool() for p in picks])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_probabilities_of_all_subsets_are_the_softmax_of_their_sums(size: int) -> None:
    chosen = rows(5, size)
    sums = (chosen * SCORES).sum(1)
    out = subset_log_prob(SCORES.expand(len(chosen), -1), chosen)
    assert torch.allclose(out, sums.log_softmax(0), atol=1e-12)


def test_choosing_everything_or_nothing_is_certain_and_teaches_nothing() -> None:
    scores = SCORES.expand(2, -1).clone().requires_grad_()
    out = subset_log_prob(scores, torch.tensor([[True] * 5, [False] * 5]))
    (grad,) = torch.autograd.grad(out.sum(), scores)
    assert torch.allclose(out, torch.zeros(2, dtype=F64), atol=1e-12)
    assert torch.allclose(grad, torch.zeros(2, 5, dtype=F64), atol=1e-12)


def test_a_constant_and_the_order_change_nothing() -> None:
    chosen, order = torch.tensor([[True, False, True, False, False]]), torch.tensor([3, 1, 4, 0, 2])
    out = subset_log_prob(SCORES, chosen)
    assert torch.allclose(subset_log_prob(SCORES + 7.0, chosen), out, atol=1e-12)
    assert torch.allclose(subset_log_prob(SCORES[:, order], chosen[:, order]), out, atol=1e-12)


def test_gradient_is_chosen_minus_the_chance_of_being_chosen() -> None:
    chosen = rows(5, 2)
    chance = (subset_log_prob(SCORES.expand(len(chosen), -1), chosen).exp()[:, None] * chosen).sum(0)
    scores = SCORES.clone().requires_grad_()
    (grad,) = torch.autograd.grad(subset_log_prob(scores, chosen[3:4]).sum(), scores)
    assert torch.allclose(grad[0], chosen[3].double() - chance, atol=1e-12)
    assert torch.autograd.gradcheck(lambda s: subset_log_prob(s, chosen[3:4]), scores)


def test_masked_candidates_are_not_there() -> None:
    nan = float("nan")
    scores = torch.tensor([[nan, 0.3, -1.2, nan, 0.8, 0.1, -0.4]], dtype=F64, requires_grad=True)
    chosen = torch.tensor([[False, True, False, False, True, False, False]])
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 1]])
    out = subset_log_prob(scores, chosen, mask=mask)
    (grad,) = torch.autograd.grad(out.sum(), scores)
    plain = subset_log_prob(SCORES, torch.tensor([[True, False, True, False, False]]))
    assert torch.allclose(out, plain, atol=1e-12) and torch.isfinite(grad).all() and (grad[mask == 0] == 0).all()


def test_one_candidate_is_certain() -> None:
    assert subset_log_prob(SCORES[:, :1], torch.tensor([[True]])).tolist() == [0.0]


def test_sizes_may_differ_and_scores_may_be_extreme() -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0], [50.0, -50.0, 1e4]], requires_grad=True)
    out = subset_log_prob(scores, torch.tensor([[True, False, False], [True, False, True]]))
    (grad,) = torch.autograd.grad(out.sum(), scores)
    assert torch.allclose(out, torch.zeros(2), atol=1e-3) and torch.isfinite(grad).all()
    assert subset_log_prob(SCORES.bfloat16(), rows(5, 2)[:1]).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    chosen = torch.tensor([[True, False, True, False, False]])
    for bad, words in [
        (lambda: subset_log_prob(SCORES.long(), chosen), "floating"),
        (lambda: subset_log_prob(SCORES[0], chosen[0]), r"\(B, N\)"),
        (lambda: subset_log_prob(torch.zeros(0, 5), torch.zeros(0, 5)), r"\(B, N\)"),
        (lambda: subset_log_prob(SCORES, chosen[:, :4]), "chosen"),
        (lambda: subset_log_prob(SCORES, chosen, mask=torch.tensor([[0, 1, 1, 1, 1]])), "masked candidate"),
    ]:
        with pytest.raises(ValueError, match=words):
            bad()


def test_tspo() -> None:
    tspo = recipes.get("tspo")
    assert dict(tspo.defaults) == {"eps": 0.2}
    chosen = torch.tensor([[[1, 1, 0], [0, 1, 1], [1, 0, 1]]]).bool()
    scores, old = f64([0.2, -0.3, 0.1]), f64([0.0, 0.0, 0.0])
    sums = f64(-0.1, -0.2, 0.3)
    rho = 3 * sums.softmax(0)
    adv = f64(1.0, -0.5, -0.5) * 2 / math.sqrt(3)  # rewards 1 0 0: mean 1/3, unbiased std 1/sqrt 3
    want = [max(-a * p, -a * min(max(p, 0.8), 1.2)) for a, p in zip(adv.tolist(), rho.tolist(), strict=True)]
    assert want[2] != pytest.approx(-(adv * rho)[2].item()) or rho[2] > 1.2
    assert tspo(scores, old, chosen, f64([1.0, 0.0, 0.0]))[0].tolist() == pytest.approx(want, rel=1e-5)
    everything = torch.ones(1, 2, 3, dtype=torch.bool)
    assert gradient(tspo, scores, old, everything, f64([1.0, 0.0])).abs().max() < 1e-12


def test_tspo_clips() -> None:
    tspo, chosen = recipes.get("tspo"), torch.tensor([[[1, 0], [0, 1]]]).bool()
    out = tspo(f64([1.0, 0.0]), f64([0.0, 0.0]), chosen, f64([1.0, 0.0]))
    a = 0.5 / (math.sqrt(0.5) + 1e-6)
    assert out[0].tolist() == pytest.approx([-a * 1.2, a * 0.8])
    old = f64([0.0, 0.0]).requires_grad_()
    assert not tspo(f64([1.0, 0.0]), old, chosen, f64([1.0, 0.0])).requires_grad
