"""Pairs of images: published parity numbers, reductions to Diffusion-DPO, clips, shifts and errors near 0."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes.preference_diffusion import odds, smoothed_preference

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


DW, DK = t(1e-4), t(-3e-5)
BY_HAND = {
    "diffusion-dpo": ([DW, DK], 0.4200553),  # sp(-.65)
    "d2dpo": ([t(0.2), t(-0.5)], 0.4031860),  # sp(-.7)
    "dso": ([t(0.3), t(0.45)], -0.15),
    "smpo": ([DW, DK, t(0.6)], 0.4665731),  # sp(-2000 * 10 * .2 * 1.3e-4)
    "d3po": ([t(0.3), t(-0.05)], 0.6859081),  # sp(-.1 (log 1.1 + .05))
    "spo-diffusion": ([t(0.3), t(-0.05)], 0.2101344),  # sp(-10 (log 1.1 + .05))
    "flow-dpo": ([t(3e-3), t(1e-3)], 0.5981389),  # sp(-100 2e-3)
    "diffusion-dro": ([t(3e-4), t(5e-4)], 1.4e-3),  # 1e-3 + 2 * 2e-4
    "diffusion-kto": ([t(4e-4), torch.tensor([True])], 0.5),  # a batch of one is its own neutral point
    "mapo": ([t(0.2), t(0.2005)], 0.2634556),  # .2 + .1 sp(-1000 (f(.2) - f(.2005)))
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    args, expected = BY_HAND[name]
    assert recipes.get(name)(*args).tolist() == pytest.approx([expected], abs=1e-7)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in BY_HAND} == {
        "diffusion-dpo": {"beta": 5000.0},
        "d2dpo": {"beta": 1.0},
        "dso": {},
        "smpo": {"beta": 2000.0, "gamma": 10.0},
        "d3po": {"beta": 0.1, "eps": 0.1},
        "spo-diffusion": {"beta": 10.0, "eps": 0.1},
        "flow-dpo": {"beta": 100.0},
        "diffusion-dro": {"margin": 1e-3},
        "diffusion-kto": {"beta": 2000.0},
        "mapo": {"beta": 0.1, "scale": 0.5, "steps": 1000},
    }


def test_diffusion_dpo_parity_in_errors() -> None:
    m_w, m_l = t(0.0213 - 1e-4).requires_grad_(), t(0.3).requires_grad_()
    loss = recipes.get("diffusion-dpo")(-(m_w - 0.0213) / 2, -(m_l - 0.3) / 2)
    assert loss.item() == pytest.approx(0.575939, abs=5e-7)
    at_ref = recipes.get("diffusion-dpo")(-(m_w - m_w.item()) / 2, -(m_l - 0.3) / 2)
    grads = torch.autograd.grad(at_ref.sum(), (m_w, m_l))
    assert [g.item() for g in grads] == pytest.approx([1250.0, -1250.0])  # beta / 4


def test_d2dpo_parity() -> None:
    half_masked = t(2 * (0.2 - 0.1))  # t = 1/2, two masked tokens with log-ratios .2 and -.1
    assert recipes.get("d2dpo")(half_masked, t(0.0)).item() == pytest.approx(math.log1p(math.exp(-0.2)))


def test_dso_is_linear_and_four_times_the_small_beta_slope_of_dpo() -> None:
    dso = recipes.get("dso")
    assert torch.allclose(dso(t(0.6), t(0.9)), 2 * dso(t(0.3), t(0.45)))
    small = 1e-6
    rise = (recipes.get("diffusion-dpo")(t(-0.15), t(-0.225), beta=small) - math.log(2)) / small
    assert (4 * rise).item() == pytest.approx(dso(t(0.3), t(0.45)).item(), abs=1e-6)


def test_smpo_multiplier() -> None:
    smpo, dpo = recipes.get("smpo"), recipes.get("diffusion-dpo")
    assert torch.allclose(smpo(DW, DK, t(0.55)), dpo(DW, DK, beta=2000.0))
    delta = t(1e-4).requires_grad_()
    loss = smpo(delta, DK, t(0.5))
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.autograd.grad(loss.sum(), delta)[0].item() == 0
    assert 10 * (2 * smoothed_preference(t(0.282016), t(0.115435)).item() - 1) == pytest.approx(4.62, abs=2e-3)
    assert smoothed_preference(t(0.22), t(0.2)).item() == pytest.approx(0.5299794, abs=1e-7)
    with pytest.raises(ValueError, match="2 p - 1"):
        smpo(DW, DK, t(0.45))
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
        smpo(DW, DK, t(1.05))


def test_smpo_preferences_do_not_learn() -> None:
    p, score = t(0.6).requires_grad_(), t(0.2).requires_grad_()
    assert not recipes.get("smpo")(DW, DK, p).requires_grad
    assert not smoothed_preference(score, t(0.1)).requires_grad and not smoothed_preference(t(0.1), score).requires_grad


def test_d3po_parity_clip_and_ties() -> None:
    d3po = recipes.get("d3po")
    assert d3po(t(0.05), t(-0.02)).item() == pytest.approx(0.689653, abs=5e-7)
    assert d3po(t(0.2), t(-0.02)).item() == d3po(t(0.3), t(-0.02)).item() == pytest.approx(0.687398, abs=5e-7)
    steps = torch.tensor([[0.05, 0.2], [0.05, -0.3]], dtype=F64).requires_grad_()
    loss = d3po(steps, torch.zeros(2, 2, dtype=F64), beta=t(0.1, 0.0))
    (grad,) = torch.autograd.grad(loss.sum(), steps)
    assert loss.shape == (2, 2) and loss[1].tolist() == pytest.approx([math.log(2)] * 2)
    assert grad[0, 0] < 0 and grad.flatten()[1:].tolist() == [0.0, 0.0, 0.0]


def test_diffusion_dro_at_the_reference_and_past_its_margin() -> None:
    delta = t(0.0, 1e-3).requires_grad_()
    loss = recipes.get("diffusion-dro")(delta, t(0.0, 0.0))
    assert loss.tolist() == pytest.approx([1e-3, 0.0])
    assert torch.autograd.grad(loss.sum(), delta)[0].tolist() == [-2.0, 0.0]


def test_diffusion_kto_shifts_by_the_mean_unless_it_is_negative() -> None:
    kto = recipes.get("diffusion-kto")
    delta = t(4e-4, -2e-4, 1e-4)  # u = .8, -.4, .2 of mean .2: .6 on the right side twice, then 0
    liked = torch.tensor([True, False, True])
    assert kto(delta, liked).tolist() == pytest.approx([0.3543437, 0.3543437, 0.5], abs=1e-7)
    assert kto(t(-2e-4, -3e-4), liked[:2]).tolist() == pytest.approx([0.5986877, 0.3543437], abs=1e-7)
    assert kto(t(0.0, 0.0), liked[:2]).tolist() == [0.5, 0.5]
    assert kto(delta, liked, weight_d=2.0, weight_u=0.5).tolist() == pytest.approx(
        [0.7086874, 0.1771718, 1.0], abs=1e-7
    )


def test_diffusion_kto_shift_does_not_learn() -> None:
    delta = t(4e-4, 3e-4).requires_grad_()
    loss = recipes.get("diffusion-kto")(delta, torch.tensor([True, False]))
    (grad,) = torch.autograd.grad(loss[0], delta)
    assert grad[0] < 0 and grad[1] == 0


def test_mapo_odds() -> None:
    assert odds(t(0.0, 1.0)).tolist() == pytest.approx([1.0, 0.7707470], abs=1e-7)
    assert 1000 * (odds(t(0.2)) - odds(t(0.3))).item() == pytest.approx(23.9589, abs=1e-4)
    m = t(0.0).requires_grad_()
    assert torch.autograd.grad(odds(m).sum(), m)[0].item() == pytest.approx(-0.25)
    assert odds(t(1.0), scale=2.0).item() == pytest.approx(2 / (math.exp(2) - 1))
    assert torch.autograd.gradcheck(odds, t(0.0, 1e-4, 0.3, 5.0).requires_grad_())


def test_mapo_odds_are_smooth_where_the_series_ends() -> None:
    m = torch.tensor([2e-3 - 1e-9, 2e-3 + 1e-9], dtype=F64, requires_grad=True)
    out = odds(m)
    (grad,) = torch.autograd.grad(out.sum(), m)
    exact = 1e-3 / math.expm1(1e-3)
    assert out.tolist() == pytest.approx([exact, exact], abs=1e-8)
    assert (out[0] - out[1]).item() == pytest.approx(0.25 * 2e-9, rel=1e-2)
    assert grad.tolist() == pytest.approx([-0.25 + 1e-3 / 12 * 1.0] * 2, abs=1e-6)


def test_mapo_of_equal_errors() -> None:
    assert recipes.get("mapo")(t(0.2), t(0.2)).item() == pytest.approx(0.2 + 0.1 * math.log(2))
    m_w, m_l = t(0.2).requires_grad_(), t(0.2).requires_grad_()
    grads = torch.autograd.grad(recipes.get("mapo")(m_w, m_l).sum(), (m_w, m_l))
    assert grads[0].item() > 1 and grads[1].item() == pytest.approx(1 - grads[0].item())


@pytest.mark.parametrize("name", BY_HAND)
def test_finite_far_out(name: str) -> None:
    far = torch.tensor([0.0, 50.0, 1e4]) if name == "mapo" else torch.tensor([-1e4, -50.0, 50.0, 1e4])
    args = [far.requires_grad_(), *(x.repeat(len(far)) for x in BY_HAND[name][0][1:])]
    args = [x.float() if x.is_floating_point() else x for x in args]
    loss = recipes.get(name)(*args)
    (grad,) = torch.autograd.grad(loss.sum(), args[0])
    assert loss.shape == far.shape and torch.isfinite(loss).all() and torch.isfinite(grad).all()


def test_mapo_refuses_errors_that_do_not_pair() -> None:
    with pytest.raises(ValueError, match="error_l"):
        recipes.get("mapo")(t(0.1, 0.2), t(0.1))
    with pytest.raises(ValueError, match="error_w must be of a floating"):
        recipes.get("mapo")(torch.tensor([1]), t(0.1))


NOISE = torch.tensor([[0.5, -1.0], [0.3, 0.8]], dtype=torch.float64)
MOVED_W = torch.tensor([[0.2, -0.1], [0.3, 0.1]], dtype=torch.float64)
MOVED_L = torch.tensor([[-0.4, 0.2], [0.1, -0.3]], dtype=torch.float64)
REF_ERROR_W = torch.tensor([[0.3, 0.0], [0.1, 0.2]], dtype=torch.float64)
REF_ERROR_L = torch.tensor([[-0.2, 0.3], [0.2, -0.2]], dtype=torch.float64)
KTO_LABELS = torch.tensor([True, False, True, False])
KTO_ERRORS = torch.tensor([2e-4, -1e-4, 5e-5, 3e-4], dtype=torch.float64)  # m_ref - m, twice the log-ratio
# name: losses, gradient; jacklishufan/diffusion-kto train_kto_sd_v1.5.py, beta 1000, weights 1.5 and .8, whose losses
# have the constant w besides; AIDC-AI/Diffusion-SDPO train.py, beta 3
RELEASED = {
    "diffusion-kto": (
        [0.71720842, 0.35765921, 0.77342987, 0.43739053], [-374.28314148, 197.75907477, -374.63402735, 198.25243907],
    ),
    "diffusion-kto-loss-averse": (
        [0.97553086, 0.47402492, 1.08732807, 0.63302825], [-717.20841904, 357.65921482, -773.42987358, 437.39052811],
    ),
    "diffusion-kto-risk-seeking": (
        [-1.10678086, -0.6440249, -0.99357807, -0.48302823], [-782.79158096, 442.3407971, -726.57012642, 362.60948382],
    ),
    "dspo": (
        [0.06006464, 0.03167898],
        [-0.14193955, -0.02355187, 0.01046553, -0.12718371, 0.01741379, -0.0087069, -0.00290705, 0.00872115],
    ),
    "dspo-sdxl": (
        [0.00229812, 0.00639141],
        [-0.0222633, -0.02334009, 0.05397506, -0.02461771, 0.00143572, -0.00071786, -0.00094793, 0.00284378],
    ),
}  # fmt: skip


def dspo_of(name: str, **settings: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses on two pairs, and the gradient with respect to the predictions of winners, then losers."""
    value_w, value_l = ((NOISE + moved).requires_grad_() for moved in (MOVED_W, MOVED_L))
    error = lambda x: ((x - NOISE) ** 2).mean(1)  # noqa: E731
    r_w = (error(NOISE + REF_ERROR_W) - error(value_w)) / 2
    r_l = (error(NOISE + REF_ERROR_L) - error(value_l)) / 2
    more = (NOISE,) if name == "dspo" else ()
    loss = recipes.get(name)(r_w, r_l, value_w, NOISE + REF_ERROR_W, *more, **settings)
    return loss, torch.cat(torch.autograd.grad(loss.sum(), [value_w, value_l]))


@pytest.mark.parametrize("name", RELEASED)
def test_released_values(name: str) -> None:
    losses, gradient = RELEASED[name]
    if name.startswith("dspo"):
        loss, grad = dspo_of(name, beta=3.0, **({"threshold": 0.005} if name == "dspo-sdxl" else {}))
    else:
        errors = KTO_ERRORS.clone().requires_grad_()
        loss = recipes.get(name)(errors / 2, KTO_LABELS, beta=2000.0, weight_d=1.5, weight_u=0.8)
        (grad,) = torch.autograd.grad(loss.sum(), errors)
        plain = recipes.get(name)(errors / 2, KTO_LABELS)
        assert dict(recipes.get(name).defaults) == {"beta": 2000.0}
        assert torch.allclose(plain * torch.where(KTO_LABELS, 1.5, 0.8), loss)
    assert loss.tolist() == pytest.approx(losses, abs=1e-7)
    assert grad.flatten().tolist() == pytest.approx(gradient, rel=1e-6, abs=1e-7)


def test_dspo_for_sdxl_drops_the_shift_while_it_is_small() -> None:
    """AIDC-AI/Diffusion-SDPO train.py, threshold .1: only (1 - sigmoid(z))**2 remains."""
    loss, grad = dspo_of("dspo-sdxl", beta=3.0)
    assert loss.tolist() == pytest.approx([0.2298116, 0.2556564], abs=1e-7)
    expected = [0.07178579, -0.03589289, 0.11375117, 0.03791706, 0.14357157, -0.07178579, -0.03791706, 0.11375117]
    assert grad.flatten().tolist() == pytest.approx(expected, abs=1e-7)


def test_dspo_at_the_reference_is_fine_tuning_on_the_preferred_image() -> None:
    value, zero = (NOISE + MOVED_W).requires_grad_(), torch.zeros(2, dtype=torch.float64)
    loss = recipes.get("dspo")(zero, zero, value, value.detach(), NOISE, beta=0.0 + 1e-9)
    assert torch.allclose(loss, (MOVED_W**2).mean(1), atol=1e-8)
    assert dict(recipes.get("dspo").defaults) == {"beta": 1e-3}
    assert dict(recipes.get("dspo-sdxl").defaults) == {"beta": 1e-3, "threshold": 0.1}
    with pytest.raises(ValueError, match="value_ref_w"):
        recipes.get("dspo")(zero, zero, value, value[:1], NOISE)


@pytest.mark.parametrize("name", ["dspo", "dspo-sdxl"])
def test_dspos_reference_and_noise_have_no_gradient(name: str) -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    value, ref, noise = ((NOISE + move).requires_grad_() for move in (MOVED_W, 3.0, 0.0))
    more = (noise,) if name == "dspo" else ()
    loss = recipes.get(name)(zero, zero, value, ref, *more)
    grads = torch.autograd.grad(loss.sum(), (value, ref, noise), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is grads[2] is None


def test_dspos_threshold_is_compared_with_the_mean() -> None:
    zero, value = torch.zeros(2, dtype=torch.float64), torch.full((2, 4), 0.2, dtype=torch.float64)
    small = recipes.get("dspo-sdxl")(zero, zero, value, torch.zeros_like(value), threshold=0.05)
    assert small.tolist() == pytest.approx([0.25, 0.25])  # mean .04, sum .32
