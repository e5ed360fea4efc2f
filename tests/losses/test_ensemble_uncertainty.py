"""Uncertainties of an ensemble by hand, and the distance of a sample from data."""

from __future__ import annotations

import inspect
import math
from functools import partial

import pytest
import torch

from diffalign.losses import ensemble_uncertainty as unc

F64 = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


MEANS = t([1, 0], [3, 0], [8, 0])
STDS = t([1, 2], [2, 2], [0.5, 2])
MEASURES = {
    "max_aleatoric": unc.max_aleatoric,
    "max_pairwise": unc.max_pairwise,
    "mixture_variance": unc.mixture_variance,
    "mixture_std": unc.mixture_std,
    "leave_one_out_kl": unc.leave_one_out_kl,
    "likelihood_variance": lambda m, s: unc.likelihood_variance(m, s, torch.ones_like(m[0])),
}


@pytest.fixture(params=MEASURES.values(), ids=MEASURES)
def measure(request):
    return request.param


def test_by_hand() -> None:
    assert torch.equal(unc.max_aleatoric(MEANS, STDS), t(2, 2))
    assert torch.equal(unc.max_pairwise(MEANS, STDS), t(7, 0))
    var = t(5.25 / 3 + 26 / 3, 4)  # mean of the variances; the means 1, 3, 8 have population variance 26 / 3
    assert torch.allclose(unc.mixture_variance(MEANS, STDS), var)
    assert torch.allclose(unc.mixture_std(MEANS, STDS), var.sqrt())


def test_variance_of_a_mixture_against_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    k = torch.randint(3, (200_000,), generator=generator)
    draws = MEANS[k, 0] + STDS[k, 0] * torch.randn(200_000, generator=generator, dtype=F64)
    assert draws.var().item() == pytest.approx(unc.mixture_variance(MEANS, STDS)[0].item(), rel=0.02)


def test_likelihoods_against_torch() -> None:
    value = t(1.7, -0.3)
    log_prob = torch.distributions.Normal(MEANS, STDS).log_prob(value)
    assert torch.allclose(unc.likelihood_variance(MEANS, STDS, value), log_prob.var(0, unbiased=False))
    assert unc.likelihood_variance(MEANS[:1], STDS[:1], value).tolist() == [0, 0]


@pytest.mark.parametrize("member", [0, 1, 2, -1])
def test_divergence_from_the_others_against_torch(member: int) -> None:
    rest = [k for k in range(3) if k != member % 3]
    var = STDS[rest].square().mean(0) + MEANS[rest].var(0, unbiased=False)
    other = torch.distributions.Normal(MEANS[rest].mean(0), var.sqrt())
    own = torch.distributions.Normal(MEANS[member], STDS[member])
    expected = torch.distributions.kl_divergence(own, other)
    assert torch.allclose(unc.leave_one_out_kl(MEANS, STDS, member=member), expected)
    if member == 0:
        assert torch.allclose(unc.leave_one_out_kl(MEANS, STDS), expected)


def test_divergence_of_two() -> None:
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(MEANS[0], STDS[0]), torch.distributions.Normal(MEANS[1], STDS[1])
    )
    assert torch.allclose(unc.leave_one_out_kl(MEANS[:2], STDS[:2]), expected)


def test_members_that_agree_know(measure) -> None:
    same = t([1.5, 0]).expand(3, 2)
    certain = measure(same, torch.full_like(same, 0.25))
    at_most = {"max_aleatoric": 0.25, "mixture_std": 0.25, "mixture_variance": 0.0625}
    bound = next((b for name, b in at_most.items() if MEASURES[name] is measure), 0.0)
    assert torch.allclose(certain, torch.full_like(certain, bound), atol=1e-12)


def test_shift_and_gradients(measure) -> None:
    if measure is not MEASURES["likelihood_variance"]:
        assert torch.allclose(measure(MEANS + 5, STDS), measure(MEANS, STDS))
    inputs = MEANS.clone().requires_grad_(), STDS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: measure(m, s)[:1], inputs)
    assert (measure(MEANS, STDS) >= 0).all() and measure(MEANS.float(), STDS).dtype == torch.float32


def test_information_gain() -> None:
    r = t([1, 0.5], [3, 0.5], [5, 0.5])
    assert torch.allclose(unc.information_gain(r), t(math.log(1 + 4e6), 0))
    assert unc.information_gain(r, noise=2.0)[0].item() == pytest.approx(math.log(3))
    assert torch.equal(unc.information_gain(torch.cat([r, t([math.nan, math.nan])])), unc.information_gain(r))
    with pytest.raises(ValueError, match="noise"):
        unc.information_gain(r, noise=0.0)


def test_elliptical_by_hand() -> None:
    seen = t([1, 0], [1, 0], [0, 3])  # precision diag(2, 9) + ridge
    phi = t([1, 0], [0, 2], [1, 1])
    assert torch.allclose(unc.elliptical(phi, seen), t(1 / 3, 4 / 10, 1 / 3 + 0.1).sqrt())
    assert torch.allclose(unc.elliptical(phi, seen, ridge=2.0), t(1 / 4, 4 / 11, 1 / 4 + 1 / 11).sqrt())
    assert torch.allclose(unc.elliptical(-3 * phi, seen), 3 * unc.elliptical(phi, seen))


def test_elliptical_shrinks_with_data_and_has_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    seen, phi = torch.randn(6, 3, generator=generator, dtype=F64), torch.randn(4, 3, generator=generator, dtype=F64)
    assert (unc.elliptical(phi, torch.cat([seen, phi[:1]])) < unc.elliptical(phi, seen)).all()
    assert torch.autograd.gradcheck(partial(unc.elliptical, seen=seen), (phi.clone().requires_grad_(),))
    zero = torch.zeros(1, 3, requires_grad=True)
    value = unc.elliptical(zero, seen.requires_grad_())
    assert value.dtype == torch.float32 and abs(value.item()) < 1e-30
    grads = torch.autograd.grad(value.sum(), (zero, seen), allow_unused=True)
    assert grads[0].isfinite().all() and grads[1] is None
    assert inspect.signature(unc.elliptical).parameters["ridge"].default == 1.0


def test_lower_bound() -> None:
    assert torch.equal(unc.lower_bound(t(3, 4), t(1, 2), coef=0.5), t(2.5, 3))
    assert unc.lower_bound(torch.tensor(3), torch.tensor(1.0), coef=0.0).item() == 3.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: unc.max_pairwise(MEANS, STDS[:2]), "share one shape"),
        (lambda: unc.max_aleatoric(MEANS, 0 * STDS), "stds must be positive"),
        (lambda: unc.likelihood_variance(MEANS, STDS, t(1.0)), "share one shape"),
        (lambda: unc.leave_one_out_kl(MEANS[:1], STDS[:1]), "at least two"),
        (lambda: unc.elliptical(MEANS, t([1.0])), r"\(B, D\) and \(N, D\)"),
        (lambda: unc.elliptical(MEANS[0], MEANS), r"\(B, D\)"),
        (lambda: unc.elliptical(MEANS, MEANS[0]), r"\(B, D\)"),
        (lambda: unc.elliptical(MEANS, MEANS, ridge=0.0), "ridge"),
        (lambda: unc.lower_bound(t(1), t(1), coef=-1.0), "coef"),
        (lambda: unc.lower_bound(t(1), t(1, 2), coef=1.0), "share one shape"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
