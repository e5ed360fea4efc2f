"""Reward models on pairs: numbers by hand, reductions to Bradley-Terry, and what does not learn."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes.reward_pairs import bradley_terry

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


W, K = t(0.9), t(-0.4)
LATENT = [torch.tensor([x], dtype=F64) for x in ([0.5, -1.0], [-0.2, 0.3])]
VOTES = torch.tensor([[0.2], [1.0]], dtype=F64)  # strength 0.6
BY_HAND = {
    "ixc-25-reward": ([W, K], {}, 0.2410085),  # sp(-1.3)
    "polar": ([W, K], {}, 0.2410085),
    "skywork-reward-v1": ([W, K], {}, 0.2410085),
    "secrets-rlhf-2": ([W, K, VOTES], {}, 0.4031860),  # sp(-.7)
    "beyond-binary": ([W, K, t(0.6)], {}, 0.4031860),
    "atari-prefs-demos": ([W, K], {}, 0.2780599),  # -log(.9 sigmoid(1.3) + .05)
    "pearl-rrl": ([W, K, t(0.6), t(0.8)], {}, 0.1018118),  # -log Phi(1.3)
    "grm": ([W, K, t(-2.5)], {}, 0.2468578),  # .99 sp(-1.3) + .01 sp(.25)
    "vpl": ([W, K, *LATENT], {}, 0.2476014),  # sp(-1.3) + .005 (.25 + e**-.2 - .8 + 1 + e**.3 - 1.3)
    "regret-preference": ([W, K, t(0.2), t(-0.5)], {}, 0.1269280),  # sp(-2)
    "prior-symbolic": ([W, K, t(0.3)], {}, 0.5410085),
    "parl": ([W, K, t(-3.0), t(-2.0)], {"baseline": 0.1}, -0.4640338),  # l + (l - .1) * -5
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    args, settings, expected = BY_HAND[name]
    assert recipes.get(name)(*args, **settings).tolist() == pytest.approx([expected], abs=1e-7)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in BY_HAND} == {
        "ixc-25-reward": {"center": 0.0},
        "polar": {"center": 0.0},
        "skywork-reward-v1": {"gamma": 0.0},
        "secrets-rlhf-2": {"flip_below": 0.0, "smooth_below": 0.0, "smooth": 0.1},
        "beyond-binary": {"scale": 1.0},
        "atari-prefs-demos": {"flip": 0.1},
        "pearl-rrl": {},
        "grm": {"share": 0.01, "beta": 0.1},
        "vpl": {"beta": 0.01},
        "regret-preference": {},
        "prior-symbolic": {"weight": 1.0},
        "parl": {"baseline": 0.0},
    }


@pytest.mark.parametrize(
    ("name", "args", "off"),
    [
        ("skywork-reward-v1", [], {}),
        ("secrets-rlhf-2", [VOTES * 0], {}),
        ("beyond-binary", [t(0.6)], {"scale": 0.0}),
        ("atari-prefs-demos", [], {"flip": 0.0}),
        ("grm", [t(-2.5)], {"share": 0.0}),
        ("vpl", LATENT, {"beta": 0.0}),
        ("vpl", [LATENT[0] * 0, LATENT[1] * 0], {}),
        ("regret-preference", [t(0.7), t(0.7)], {}),
        ("prior-symbolic", [t(0.3)], {"weight": 0.0}),
        ("parl", [t(0.0), t(0.0)], {}),
    ],
)
def test_without_its_switch_it_is_bradley_terry(name: str, args: list, off: dict) -> None:
    assert torch.allclose(recipes.get(name)(W, K, *args, **off), recipes.get("polar")(W, K))


def test_the_centre_term_is_a_square_of_the_sum() -> None:
    assert bradley_terry(W, K, center=0.1).item() == pytest.approx(0.2410085 + 0.025, abs=1e-7)
    assert torch.equal(bradley_terry(W, K), recipes.get("ixc-25-reward")(W, K))


def test_skyworks_focal_ablation() -> None:
    assert recipes.get("skywork-reward-v1")(W, K, gamma=2.0).item() == pytest.approx(0.0110543, abs=1e-7)


def test_secrets_flips_and_smooths_by_strength() -> None:
    secrets = recipes.get("secrets-rlhf-2")
    votes = torch.tensor([[-0.6, 0.1, 0.6], [-0.2, 0.0, 0.6]], dtype=F64)  # strengths -.4, .05, .6
    loss = secrets(t(0.9, 0.9, 0.9), t(-0.4, -0.4, -0.4), votes, smooth_below=0.1)
    assert loss.tolist() == pytest.approx([1.8677860, 0.3769291, 0.4031860], abs=1e-7)
    swapped = secrets(K, W, -votes[:, :1])  # a flipped pair is the swapped pair, margin included
    assert loss[0].item() == pytest.approx(swapped.item())
    weak = votes[:, :1]
    assert secrets(W, K, weak, flip_below=-1.0).item() == pytest.approx(0.3377860, abs=1e-7)
    assert secrets(W, K, weak, flip_below=-1.0, smooth_below=-1.0).item() == pytest.approx(0.1677860, abs=1e-7)
    assert secrets(W, K, VOTES, smooth_below=1.0, smooth=0.0).item() == pytest.approx(0.4031860, abs=1e-7)
    assert secrets(W, K, VOTES, flip_below=0.6, smooth_below=0.6).item() == pytest.approx(0.4031860, abs=1e-7)


def test_pearl_is_certain_without_noise_and_learns_its_deviations() -> None:
    pearl = recipes.get("pearl-rrl")
    std = t(0.6).requires_grad_()
    loss = pearl(W, K, std, t(0.8))
    (grad,) = torch.autograd.grad(loss.sum(), std)
    assert grad.item() > 0  # more noise makes a right answer less likely
    assert pearl(W, K, t(0.0), t(0.0)).item() == pytest.approx(0, abs=1e-12)
    assert torch.allclose(pearl(W, K, t(0.6), t(0.8)), pearl(W, K, t(0.8), t(0.6)))
    with pytest.raises(ValueError, match="std_l"):
        pearl(W, K, t(0.6), t(-0.8))


def test_vpl_pulls_the_latent_to_the_prior() -> None:
    mean, log_var = (x.clone().requires_grad_() for x in LATENT)
    grads = torch.autograd.grad(recipes.get("vpl")(W, K, mean, log_var, beta=1.0).sum(), (mean, log_var))
    assert torch.allclose(grads[0], LATENT[0])
    assert torch.allclose(grads[1], (LATENT[1].exp() - 1) / 2)


def test_potential_shaping_cancels_in_the_regret_model() -> None:
    phi = torch.tensor([0.3, -1.1, 2.0, 0.4], dtype=F64)  # start and end of each segment
    regret = recipes.get("regret-preference")
    shaped = regret(W + phi[1] - phi[0], K + phi[3] - phi[2], t(0.2) - phi[1] + phi[0], t(-0.5) - phi[3] + phi[2])
    assert torch.allclose(shaped, regret(W, K, t(0.2), t(-0.5)))


def test_parls_correction_is_a_score_function_term() -> None:
    inputs = [x.clone().requires_grad_() for x in (W, K, t(-3.0), t(-2.0))]
    grads = torch.autograd.grad(recipes.get("parl")(*inputs, baseline=0.1).sum(), inputs)
    plain = torch.autograd.grad(bradley_terry(*inputs[:2]).sum(), inputs[:2])
    assert torch.equal(grads[0], plain[0]) and torch.equal(grads[1], plain[1])
    assert [g.item() for g in grads[2:]] == pytest.approx([0.1410085] * 2, abs=1e-7)


def test_votes_and_agreement_do_not_learn() -> None:
    for name, extra in (("secrets-rlhf-2", VOTES), ("beyond-binary", t(0.6))):
        leaf = extra.clone().requires_grad_()
        assert not recipes.get(name)(W, K, leaf).requires_grad


def test_grm_keeps_the_trunk_a_generator() -> None:
    logp = t(-2.5).requires_grad_()
    (grad,) = torch.autograd.grad(recipes.get("grm")(W, K, logp, share=0.5, beta=1.0).sum(), logp)
    assert grad.item() == pytest.approx(-0.5 / (1 + math.exp(-2.5)))


def test_shares_are_probabilities() -> None:
    with pytest.raises(ValueError, match="share"):
        recipes.get("grm")(W, K, t(0.0), share=1.5)
    with pytest.raises(ValueError, match="smooth"):
        recipes.get("secrets-rlhf-2")(W, K, VOTES, smooth=-0.1)


@pytest.mark.parametrize("name", BY_HAND)
def test_one_loss_per_pair_finite_far_out(name: str) -> None:
    args, settings, _ = BY_HAND[name]
    rows = [x.float().repeat(1, 4) if name.startswith("secrets") and x is VOTES else x.float() for x in args]
    rows = [x if x.shape[-1] == 4 else x.repeat(4, *[1] * (x.ndim - 1)) for x in rows]
    rows[0] = torch.tensor([-1e4, -50.0, 50.0, 1e4]).requires_grad_()
    loss = recipes.get(name)(*rows, **settings)
    (grad,) = torch.autograd.grad(loss.sum(), rows[0])
    assert loss.shape == (4,) and torch.isfinite(loss).all() and torch.isfinite(grad).all() and grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["bradley-terry"])
def test_released_values(name: str) -> None:
    """TRL 1.16.0 trl/trainer/reward_trainer.py with a margin and center_rewards_coefficient .01."""
    from tests.losses.released import R_L, R_W, f64

    loss = recipes.get(name)(R_W, R_L, margin=f64(0.2, 0.0, 0.5), center=0.01)
    assert loss.tolist() == pytest.approx([0.20631328, 1.31366169, 0.85595524], abs=1e-8)
    assert dict(recipes.get(name).defaults) == {}
