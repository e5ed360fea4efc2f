"""From a denoiser to a loss and its gradient: surrogates feed every pair, list, unpaired and regression objective."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from diffalign.losses import (
    draws,
    label_noise,
    listwise,
    preference,
    rank_pairs,
    ratio_links,
    recipes,
    surrogates,
    unpaired,
)
from diffalign.losses.diffusion import Reduce, latent_mean, latent_sum
from diffalign.losses.regression import regression_loss
from diffalign.losses.time_weights import epsilon_weight

F64 = torch.float64
PAIRS, SHAPE = 3, (2, 3, 3)
D = math.prod(SHAPE)
Loss = Callable[[Tensor], Tensor]


class Denoiser(nn.Module):
    """A convolution that sees the time; in fp64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1).double()
        self.time = nn.Linear(1, 2).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) + self.time(t[:, None])[:, :, None, None]


class World:
    """A policy, its frozen reference a little aside, and a pair batch at shared times and noise, winners first."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.policy = Denoiser()
        self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        for p in self.policy.parameters():
            p.data.add_(0.05 * torch.randn_like(p))
        self.x_0 = torch.randn(2 * PAIRS, *SHAPE, dtype=F64)
        groups = self.x_0.unflatten(0, (2, PAIRS)).transpose(0, 1)
        self.noise = draws.shared_noise(groups).transpose(0, 1).flatten(0, 1)
        self.t = torch.rand(PAIRS, dtype=F64).repeat(2)
        time = self.t[:, None, None, None]
        self.x_t = (1 - time) * self.x_0 + time * self.noise

    def both(self) -> tuple[Tensor, Tensor]:
        return self.policy(self.x_t, self.t), self.reference(self.x_t, self.t)

    def epsilon(self, reduce: Reduce = latent_mean) -> Tensor:
        return surrogates.epsilon(*self.both(), self.noise, reduce=reduce)

    def velocity(self, reduce: Reduce = latent_mean) -> Tensor:
        return surrogates.velocity(*self.both(), self.noise - self.x_0, self.t, weight=epsilon_weight, reduce=reduce)

    def gaussian_step(self, reduce: Reduce = latent_mean) -> Tensor:
        mean, mean_ref = (self.x_t - 0.1 * x for x in self.both())
        next_x = mean_ref + 0.2 * self.noise
        stacked = (x[:, None].repeat(1, 2, 1, 1, 1) for x in (next_x, mean, mean_ref))
        return surrogates.gaussian_step(*stacked, torch.tensor([0.2, 0.0], dtype=F64), reduce=reduce).sum(1)

    def masked(self) -> Tensor:
        tokens = self.x_0.flatten(1) > 0
        p, ref = (nn.functional.logsigmoid(x.flatten(1) * (2 * tokens.double() - 1)) for x in self.both())
        return surrogates.masked(p, ref, self.noise.flatten(1) > 0, 0.1 + 0.8 * self.t)

    def slopes(self, loss: Tensor) -> Tensor:
        gradients = torch.autograd.grad(
            loss.sum(), list(self.policy.parameters()), allow_unused=True, retain_graph=True
        )
        return torch.cat([g.flatten() for g in gradients if g is not None])


SURROGATES = [World.epsilon, World.velocity, World.gaussian_step, World.masked]
LINKS: list[Loss] = [
    preference.logistic,
    preference.linear,
    preference.probit,
    partial(preference.hinge, target=50.0),
    partial(preference.smooth_hinge, target=50.0),
    partial(preference.square, target=5.0),
    partial(preference.focal, gamma=2.0),
    partial(label_noise.noise_mixture, flip=0.1),
    partial(label_noise.soft_label, preference.logistic, label=0.8),
]
LIKED = torch.tensor([True] * PAIRS + [False] * PAIRS)
LABELS = torch.tensor([[1.0, 0.0]], dtype=F64).expand(PAIRS, 2)


def pairwise(link: Loss, u: Tensor) -> Tensor:
    return link(preference.pair_margin(*draws.winner_loser(u)))


def grouped(u: Tensor) -> Tensor:
    return torch.stack(draws.winner_loser(u), 1)


def lambda_loss(u: Tensor) -> Tensor:
    s = grouped(u)
    return rank_pairs.pairwise_sum(s, LABELS, weight=rank_pairs.dcg_weight(LABELS, rank_pairs.rank(s, LABELS)))


OBJECTIVES: dict[str, Loss] = {
    **{f"pair-{i}": partial(pairwise, link) for i, link in enumerate(LINKS)},
    "power": lambda u: pairwise(preference.logistic, ratio_links.power_link(u, alpha=0.5)),
    "js": lambda u: pairwise(preference.logistic, ratio_links.js_link(u)),
    "lambda": lambda_loss,
    "ranked": lambda u: rank_pairs.pairwise_mean(grouped(u), LABELS),
    "plackett-luce": lambda u: listwise.plackett_luce(grouped(u)),
    "target": lambda u: listwise.target_kl(grouped(u), 0.4 * LABELS + 0.3),
    "bco": lambda u: unpaired.logistic(u, LIKED, shift=0.1),
    "kto": lambda u: unpaired.kto(u, LIKED, shift=unpaired.kto_shift(u)),
    "pmpo": lambda u: unpaired.linear(u, LIKED),
    "regression": lambda u: regression_loss(u, LIKED.double() - 0.5),
}


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_surrogate_feeds_every_objective(surrogate, name: str) -> None:
    world = World()
    delta = surrogate(world)
    assert delta.shape == (2 * PAIRS,)
    loss = OBJECTIVES[name](20.0 * delta)
    slopes = world.slopes(loss)
    assert loss.isfinite().all() and slopes.isfinite().all() and slopes.abs().max() > 0


@pytest.mark.parametrize("surrogate", [World.epsilon, World.velocity, World.gaussian_step], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_beta_on_means_is_beta_over_the_dimensions_on_sums(surrogate, name: str) -> None:
    """beta_sum = beta_mean / D leaves every loss and every gradient as it is."""
    beta = 500.0
    found = []
    for reduce, scale in ((latent_mean, beta), (latent_sum, beta / D)):
        world = World()
        loss = OBJECTIVES[name](scale * surrogate(world, reduce))
        found.append((loss.detach(), world.slopes(loss)))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-10, atol=1e-10)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-8, atol=1e-8)


def test_without_the_conversion_a_square_loss_is_another_objective() -> None:
    """IPO has no beta to rescale: on sums its gradient even points elsewhere."""
    slopes = []
    for reduce in (latent_mean, latent_sum):
        world = World()
        slopes.append(world.slopes(recipes.get("ipo")(*draws.winner_loser(100 * world.epsilon(reduce)))))
    assert torch.cosine_similarity(*slopes, dim=0) < 0.999
    logistic = []
    for scale in (1e-4, 1e-5):  # while the logistic one only changes its size, as long as the margin is small
        world = World()
        logistic.append(world.slopes(recipes.get("diffusion-dpo")(*draws.winner_loser(world.epsilon()), beta=scale)))
    assert torch.cosine_similarity(*logistic, dim=0) > 0.999999


def test_golden_diffusion_dpo() -> None:
    """m_w is 1e-4 below the reference's, m_l equal, beta 5000: z = .25 and the loss .575939."""
    target, reference = torch.zeros(2, 4, dtype=F64), torch.full((2, 4), 0.5, dtype=F64)
    policy = reference.clone()
    policy[0] = math.sqrt(0.25 - 1e-4)
    delta_w, delta_l = draws.winner_loser(surrogates.epsilon(policy, reference, target))
    assert recipes.get("diffusion-dpo")(delta_w, delta_l).item() == pytest.approx(0.575939, abs=5e-7)


def test_at_the_reference_the_loss_is_log_two_and_the_slope_a_quarter_of_beta_per_error() -> None:
    world = World()
    policy, _ = world.both()
    delta_w, delta_l = draws.winner_loser(surrogates.epsilon(policy, policy.detach(), world.noise))
    loss = recipes.get("diffusion-dpo")(delta_w, delta_l, beta=40.0)
    assert torch.allclose(loss, torch.full_like(loss, math.log(2)), atol=1e-12)
    m_w, m_l = draws.winner_loser(surrogates.denoising_error(policy, world.noise))
    expected = world.slopes(40.0 / 4 * (m_w - m_l))
    assert torch.allclose(world.slopes(loss), expected, atol=1e-10)


def test_the_linear_form_is_four_times_dpos_slope_in_beta() -> None:
    """d L / d beta at beta = 0 is -h / 2 = (m_w - m_l) / 4 with equal reference errors: DSO's DRO."""
    world = World()
    policy, _ = world.both()
    error_w, error_l = draws.winner_loser(surrogates.denoising_error(policy, world.noise))
    flat = torch.full_like(policy, 0.3) + world.noise  # equal errors of the reference everywhere
    delta_w, delta_l = draws.winner_loser(surrogates.epsilon(policy, flat, world.noise))
    beta = torch.zeros((), dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(preference.logistic(beta * (delta_w - delta_l)).sum(), beta)
    assert 4 * slope.item() == pytest.approx(recipes.get("dso")(error_w, error_l).sum().item(), abs=1e-10)


def test_flow_dpo_with_the_weight_of_the_noise_is_diffusion_dpo_of_the_same_model() -> None:
    world = World()
    v, v_ref = world.both()
    time = world.t[:, None, None, None]
    eps, eps_ref = (world.x_t + (1 - time) * x for x in (v, v_ref))
    by_noise = surrogates.epsilon(eps, eps_ref, world.noise)
    losses = [recipes.get("diffusion-dpo")(*draws.winner_loser(d)) for d in (world.velocity(), by_noise)]
    assert torch.allclose(*losses, atol=1e-9)
    slopes = [world.slopes(x) for x in losses]
    assert torch.allclose(*slopes, rtol=1e-7, atol=1e-7)


def test_one_image_against_itself_is_log_two_under_shared_noise_only() -> None:
    world = World()
    image = world.x_0[:PAIRS, None].expand(PAIRS, 2, *SHAPE)
    found = []
    for noise in (draws.shared_noise(image), draws.own_noise(image)):
        time = world.t[:PAIRS, None, None, None, None]
        x_t = ((1 - time) * image + time * noise).transpose(0, 1).flatten(0, 1)
        predictions = (m(x_t, world.t) for m in (world.policy, world.reference))
        delta = surrogates.epsilon(*predictions, noise.transpose(0, 1).flatten(0, 1))
        found.append(recipes.get("diffusion-dpo")(*draws.winner_loser(delta)) - math.log(2))
    assert found[0].abs().max() < 1e-9 and found[1].abs().min() > 1e-6


def test_several_draws_average_before_or_after_the_link() -> None:
    deltas = torch.stack([World(seed).epsilon() for seed in range(4)])
    winner, loser = deltas[:, :PAIRS], deltas[:, PAIRS:]
    dpo = partial(recipes.get("diffusion-dpo"), beta=50.0)
    inside, outside = (f(dpo, winner, loser) for f in (draws.average_inside, draws.average_outside))
    assert (inside < outside).all()
    assert torch.allclose(inside, dpo(winner.mean(0), loser.mean(0)), atol=1e-12)


def test_a_region_of_everything_is_plain_dpo_and_a_part_is_not() -> None:
    world = World()
    policy, reference = world.both()
    part = torch.zeros(1, 1, 3, 3)
    part[..., 1:] = 1
    losses = []
    for reduce in (latent_mean, surrogates.region_mean(torch.ones(1, 1, 3, 3)), surrogates.region_mean(part)):
        delta = surrogates.epsilon(policy, reference, world.noise, reduce=reduce)
        losses.append(recipes.get("diffusion-dpo")(*draws.winner_loser(delta), beta=50.0))
    assert torch.allclose(losses[0], losses[1], atol=1e-12)
    assert (losses[0] - losses[2]).abs().min() > 1e-6


def test_links_on_one_margin_pull_in_a_known_order() -> None:
    """Slope of each loss in z. A lost pair: square > probit > linear = hinge > logistic > 0; a won one: hinge 0."""

    def pull(link: Loss, z: float) -> float:
        x = torch.tensor(z, dtype=F64, requires_grad=True)
        (slope,) = torch.autograd.grad(link(x), x)
        return -slope.item()

    links = [preference.square, preference.probit, preference.linear, preference.hinge, preference.logistic]
    links[0] = partial(preference.square, target=1.0)
    square, probit, linear, hinge, logistic = (pull(link, -3.0) for link in links)
    assert square > probit > linear == hinge == 1 > logistic > 0.9
    square, probit, linear, hinge, logistic = (pull(link, 3.0) for link in links)
    assert square < 0 == hinge < probit < logistic < linear  # the square pulls back past its target
    assert pull(preference.logistic, 0.0) == pytest.approx(0.5)
    for z in (-3.0, 0.0, 3.0):
        focal = pull(partial(preference.focal, gamma=0.0), z)
        assert focal == pytest.approx(pull(preference.logistic, z), abs=1e-12)
    mixed = [pull(partial(label_noise.noise_mixture, flip=0.1), z) for z in (-10.0, -3.0)]
    assert 0 < mixed[0] < mixed[1] < pull(preference.logistic, -3.0)  # bounded: what looks hopeless is let go


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_half_precision_surrogates_give_the_losses_of_their_widened_values(name: str, dtype: torch.dtype) -> None:
    half = (20 * World().epsilon().detach()).to(dtype)
    found = OBJECTIVES[name](half)
    assert found.dtype in (torch.float32, F64)  # fp64 where the labels are
    assert torch.allclose(found.float(), OBJECTIVES[name](half.float()).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [50.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_extreme_surrogates_stay_finite(name: str, dtype: torch.dtype, size: float) -> None:
    u = torch.tensor([size, -size, 0.0, -size, size, 0.0], dtype=dtype, requires_grad=True)
    loss = OBJECTIVES[name](u)
    loss.sum().backward()
    assert loss.isfinite().all() and u.grad.isfinite().all()
