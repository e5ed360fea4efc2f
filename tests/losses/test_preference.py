"""The margin and its links: values by hand, slopes, invariances, parity numbers, corners."""

from __future__ import annotations

import inspect
import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diffalign.losses import preference
from diffalign.losses.preference import (
    focal,
    hinge,
    linear,
    logistic,
    pair_margin,
    probit,
    smooth_hinge,
    square,
)
from diffalign.losses.ratio_links import clip_link

F64 = torch.float64
LINKS = [logistic, partial(focal, gamma=2.0), hinge, smooth_hinge, square, linear, probit]


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def slope(link, *z: float) -> list[float]:
    x = t(*z).requires_grad_()
    return torch.autograd.grad(link(x).sum(), x)[0].tolist()


# the margin


def test_margin_by_hand() -> None:
    z = pair_margin(t(2.0, -1.0), t(0.5, 3.0), beta=0.5, loser_scale=0.25, margin=0.75)
    assert z.tolist() == [0.1875, -1.625]


def test_margin_defaults_to_the_plain_difference_and_to_an_anchor() -> None:
    assert pair_margin(t(2.0, -1.0), t(0.5, 3.0)).tolist() == [1.5, -4.0]
    assert pair_margin(t(2.0, -1.0)).tolist() == [2.0, -1.0]
    assert pair_margin(t(2.0, -1.0), 0.5).tolist() == [1.5, -1.5]


def test_settings_may_differ_from_row_to_row() -> None:
    z = pair_margin(t(2.0, -1.0), t(0.5, 3.0), beta=t(1.0, 0.0), loser_scale=t(2.0, 1.0), margin=t(0.0, 1.0))
    assert z.tolist() == [1.0, -1.0]
    steps = pair_margin(torch.ones(2, 2, dtype=F64), torch.zeros(2, 2, dtype=F64), beta=t(3.0, 5.0))
    assert steps.tolist() == [[3.0, 3.0], [5.0, 5.0]]  # one value per row, also when B equals T


def test_a_shift_of_both_scores_cancels_only_at_full_loser_scale() -> None:
    w, k, c = t(0.3, -0.8), t(1.1, 0.4), 2.5
    assert torch.allclose(pair_margin(w + c, k + c, beta=0.4), pair_margin(w, k, beta=0.4))
    moved = pair_margin(w + c, k + c, beta=0.4, loser_scale=0.7) - pair_margin(w, k, beta=0.4, loser_scale=0.7)
    assert moved.tolist() == pytest.approx([0.4 * 0.3 * c] * 2)


def test_scores_and_margin_learn_and_nothing_else() -> None:
    w, k, beta, scale, margin = inputs = [torch.ones(2, requires_grad=True) for _ in range(5)]
    z = pair_margin(w, k, beta=beta, loser_scale=scale, margin=margin)
    grads = torch.autograd.grad(z.sum(), inputs, allow_unused=True)
    assert [g is not None for g in grads] == [True, True, False, False, True]


def test_gradients_of_the_margin() -> None:
    w, k, m = (x.requires_grad_() for x in (t(0.5), t(0.25), t(0.1)))
    grads = torch.autograd.grad(pair_margin(w, k, beta=3.0, loser_scale=0.5, margin=m).sum(), (w, k, m))
    assert [g.item() for g in grads] == [3.0, -1.5, -1.0]


# links


@pytest.mark.parametrize(
    ("link", "values"),
    [
        (logistic, [0.4031860, 1.5410085]),
        (partial(focal, gamma=2.0), [0.0443905, 0.9516292]),
        (hinge, [0.3, 2.3]),
        (partial(hinge, target=0.5), [0.0, 1.8]),
        (smooth_hinge, [0.009, 0.529]),
        (partial(smooth_hinge, width=0.5), [0.09, 2.05]),
        (partial(smooth_hinge, target=2.0, width=1.5), [0.8450 / 1.5, 2.55]),
        (square, [0.49, 1.69]),
        (partial(square, target=0.5), [0.04, 3.24]),
        (linear, [-0.7, 1.3]),
        (probit, [0.2770239, 2.3351033]),
    ],
)
def test_links_by_hand(link, values: list[float]) -> None:
    assert link(t(0.7, -1.3)).tolist() == pytest.approx(values, abs=1e-7)


def test_equal_scores_are_pulled_apart_evenly() -> None:
    scores = torch.tensor([0.7, 0.7], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(logistic(scores[0] - scores[1]), scores)
    assert gradient.tolist() == pytest.approx([-0.5, 0.5], abs=1e-15)


def test_logistic_at_zero_and_its_slope() -> None:
    assert logistic(t(0.0)).item() == pytest.approx(math.log(2), abs=1e-15)
    assert slope(logistic, 0.0, 1.5) == pytest.approx([-0.5, -0.1824255], abs=1e-7)


def test_gradients_of_a_dpo_pair_are_opposite_and_weighted_by_beta() -> None:
    w, k = t(0.3).requires_grad_(), t(-0.2).requires_grad_()
    g_w, g_l = torch.autograd.grad(logistic(pair_margin(w, k, beta=2.0)).sum(), (w, k))
    assert g_w.item() == pytest.approx(-2 * 0.2689414, abs=1e-6) and g_l.item() == -g_w.item()


def test_small_beta_is_the_linear_link() -> None:
    w, k = t(0.9, -1.4), t(0.2, 0.3)
    small = (logistic(pair_margin(w, k, beta=1e-6)) - math.log(2)) / 1e-6
    assert torch.allclose(small, linear(pair_margin(w, k)) / 2, atol=1e-6)


def test_focal_without_a_power_is_bradley_terry() -> None:
    z = torch.linspace(-9, 9, 13, dtype=F64)
    assert torch.equal(focal(z, gamma=0.0), logistic(z))
    assert (focal(z, gamma=1.5) < logistic(z)).all()


def test_hinge_stops_at_its_target() -> None:
    assert slope(hinge, 0.999, 1.001) == [-1.0, 0.0]
    assert slope(partial(hinge, target=1e-3), 0.0, 2e-3) == [-1.0, 0.0]


def test_hinge_on_distances_is_the_triplet_loss() -> None:
    a, p, n = (torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(s)) for s in (0, 1, 2))
    near, far = (F.pairwise_distance(a, x, eps=0) for x in (p, n))
    expected = F.triplet_margin_loss(a, p, n, margin=1.0, eps=0, reduction="none")
    assert torch.allclose(hinge(pair_margin(-near, -far)), expected)


def test_logistic_on_distances_is_the_softmax_triplet() -> None:
    near, far = t(0.3, 2.0), t(1.1, 0.7)
    expected = F.cross_entropy(torch.stack([-near, -far], 1), torch.zeros(2, dtype=torch.long), reduction="none")
    assert torch.allclose(logistic(pair_margin(-near, -far)), expected)


@pytest.mark.parametrize("width", [0.3, 5.0])
def test_smooth_hinge_is_continuous_with_its_slope(width: float) -> None:
    link = partial(smooth_hinge, target=0.8, width=width)
    for joint, value, grad in ((0.8, 0.0, 0.0), (0.8 - width, width / 2, -1.0)):
        around = t(joint - 1e-9, joint + 1e-9)
        assert link(around).tolist() == pytest.approx([value] * 2, abs=1e-8)
        assert slope(link, joint - 1e-9, joint + 1e-9) == pytest.approx([grad] * 2, abs=1e-7)


def test_a_narrow_smooth_hinge_is_the_hinge() -> None:
    z = torch.linspace(-3, 3, 20, dtype=F64)
    assert torch.allclose(smooth_hinge(z, width=1e-9), hinge(z), atol=1e-8)


def test_square_is_zero_at_its_target_and_turns_there() -> None:
    link = partial(square, target=5.0)
    assert slope(link, 4.0, 5.0, 6.0) == [-2.0, 0.0, 2.0]
    assert square(t(1.0, 4.0), target=t(0.5, 6.0)).tolist() == [0.25, 4.0]
    target = t(0.5).requires_grad_()
    assert not square(t(1.0), target=target).requires_grad


QUANTILES = torch.special.ndtri((torch.arange(20_000, dtype=F64) + 0.5) / 20_000)


def test_probit_is_the_probability_that_a_gaussian_wins() -> None:
    won = (0.4 + 1.3 * QUANTILES > 0).double().mean()
    assert probit(t(0.4 / 1.3)).neg().exp().item() == pytest.approx(won.item(), abs=1e-4)


def test_a_scaled_logistic_stands_for_noisy_scores() -> None:
    mean, spread = torch.linspace(-3, 3, 13, dtype=F64), 0.8**2 + 1.1**2
    exact = (mean[:, None] + math.sqrt(spread) * QUANTILES).sigmoid().mean(1)
    kappa = 1 / math.sqrt(1 + math.pi * spread / 8)
    assert (logistic(kappa * mean).neg().exp() - exact).abs().max() < 7e-3


def test_links_order_their_pulls_on_a_mistaken_pair() -> None:
    pulls = {link: abs(slope(link, -2.0)[0]) for link in (logistic, hinge, square, linear)}
    assert pulls[logistic] < pulls[hinge] == pulls[linear] < pulls[square]


def test_at_probabilities_the_loser_is_pushed_harder() -> None:
    p_w, p_l = t(0.4).requires_grad_(), t(0.05).requires_grad_()
    g_w, g_l = torch.autograd.grad(logistic(pair_margin(p_w.log(), p_l.log(), beta=0.3)).sum(), (p_w, p_l))
    assert (g_l / g_w).item() == pytest.approx(-0.4 / 0.05)


# parity numbers


def test_parity_diffusion_dpo() -> None:
    z = pair_margin(t(0.5e-4), t(0.0), beta=5000.0)  # Delta = -(m - m_ref) / 2 with m_w - m_ref = -1e-4
    assert z.item() == pytest.approx(0.25) and logistic(z).item() == pytest.approx(0.575939, abs=5e-7)


def test_parity_beta_on_means_and_on_sums() -> None:
    d, w, k = 16_384, t(-1.3e-4), t(2e-5)
    on_means = logistic(pair_margin(w, k, beta=5000.0))
    assert torch.allclose(logistic(pair_margin(w * d, k * d, beta=5000 / d)), on_means)
    assert 5000 / d == pytest.approx(0.305, abs=5e-4)


def test_parity_clipped_steps() -> None:
    def loss(w: float, k: float) -> float:
        return logistic(pair_margin(clip_link(t(w)), clip_link(t(k)), beta=0.1)).item()

    assert loss(0.05, -0.02) == pytest.approx(0.689653, abs=5e-7)
    assert loss(0.2, -0.02) == loss(0.3, -0.02) == pytest.approx(0.687398, abs=5e-7)


def test_bradley_terry_on_density_generated_pairs_is_least_at_the_log_density() -> None:
    p = t(0.1, 0.2, 0.3, 0.4)
    wins = p[:, None] / (p[:, None] + p[None])

    def gradient(s: torch.Tensor) -> torch.Tensor:
        s = s.requires_grad_()
        z = pair_margin(s.repeat_interleave(4), s.repeat(4))
        return torch.autograd.grad((wins.flatten() * logistic(z)).sum(), s)[0]

    assert gradient(p.log() + 3).abs().max() < 1e-12
    assert gradient(p.log() * 0.99).abs().min() > 1e-5


# corners


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_far_out_is_finite_and_half_precision_is_widened(link, dtype: torch.dtype) -> None:
    z = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], dtype=dtype).requires_grad_()
    out = link(z)
    (grad,) = torch.autograd.grad(out.sum(), z)
    assert out.dtype == torch.float32 and torch.isfinite(out).all() and torch.isfinite(grad).all()
    assert torch.equal(out, link(z.detach().float()))


@pytest.mark.parametrize("link", LINKS)
def test_gradient_matches_finite_differences(link) -> None:
    assert torch.autograd.gradcheck(link, t(-6.3, -1.2, 0.4, 0.9, 2.7).requires_grad_())


@pytest.mark.parametrize("link", LINKS)
def test_one_shape_one_precision_and_no_crosstalk(link) -> None:
    z = torch.randn(3, 4, dtype=F64, generator=torch.Generator().manual_seed(3))
    out = link(z)
    assert out.shape == z.shape and out.dtype == F64
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(link(z.flatten()[order]), out.flatten()[order])


def test_margin_widens_half_precision() -> None:
    w = torch.tensor([6e4, 0.3], dtype=torch.float16)
    z = pair_margin(w, -w)
    assert z.dtype == torch.float32 and z.tolist() == (2 * w.float()).tolist()


def test_knobs_are_keywords_with_their_published_values() -> None:
    defaults = {name: f.__kwdefaults__ for name, f in inspect.getmembers(preference, inspect.isfunction)}
    assert defaults["hinge"] == {"target": 1.0} and defaults["square"] == {"target": 0.0}
    assert defaults["smooth_hinge"] == {"target": 1.0, "width": 5.0}
    assert defaults["pair_margin"] == {"beta": 1.0, "loser_scale": 1.0, "margin": 0.0}


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("score_w must be of a floating", {"score_w": torch.ones(2, dtype=torch.long), "score_l": t(0.0, 0.0)}),
        ("score_l must be of a floating", {"score_l": torch.ones(2, dtype=torch.long)}),
        (r"score_l \(1,\)", {"score_l": t(0.0)}),
        ("beta must be positive", {"beta": 0.0}),
        ("beta must be positive", {"beta": -0.1}),
        ("beta must be positive", {"beta": torch.tensor(0.0)}),
        ("beta must be positive", {"beta": math.nan}),
        ("beta must be finite and not negative", {"beta": t(0.1, -0.1)}),
        ("loser_scale", {"loser_scale": -0.5}),
        (r"\(3,\)", {"margin": t(0.0, 0.0, 0.0)}),
        (r"\(3,\)", {"beta": t(1.0, 1.0, 1.0)}),
    ],
)
def test_bad_margins_are_refused(said: str, change: dict) -> None:
    with pytest.raises(ValueError, match=said):
        pair_margin(**{"score_w": t(1.0, 2.0), "score_l": t(0.0, 0.5), **change})


def test_bad_link_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="gamma"):
        focal(t(0.0), gamma=-1.0)
    with pytest.raises(ValueError, match="width"):
        smooth_hinge(t(0.0), width=0.0)
