"""Advantages as released by others, and rewards whose scale arithmetic cannot hold."""

from __future__ import annotations

import pytest
import torch

from diffalign.sampling import replay
from diffalign.trainers import PolicyGradientConfig, preflight
from diffalign.trainers.advantages import advantage_function
from diffalign.trainers.forward_process import levels
from diffalign.trainers.nft import NFTConfig
from tests.trainers.small_runs import disturb, redness

REWARDS = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ({"scale_rewards": "group"}, -2 / 2.160247),  # DanceGRPO: unbiased, 1e-8
        (
            {"scale_rewards": "group", "reward_std": "population", "reward_std_epsilon": 1e-4},
            -2 / 1.870929,
        ),  # Flow-GRPO
        ({"scale_rewards": "batch"}, -2 / 2.061653),  # Flow-GRPO with global_std
        ({"scale_rewards": "none"}, -2.0),
    ],
)
def test_advantages_of_released_code(keys, first):
    found = advantage_function(PolicyGradientConfig(**keys))(REWARDS)
    assert float(found[0, 0]) == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(("factor", "passed"), [(1e30, True), (1e-12, False), (1.0, True), (1e-3, True)])
def test_a_reward_whose_scale_is_lost_does_not_start(make, factor, passed):
    def scaled(images, prompts, metadata):
        return redness(images, prompts, metadata) * factor

    checks = {check.name: check for check in preflight(make(rewards=scaled), full=False)}
    assert checks["advantages have a usable size"].passed == passed


def test_the_mean_squared_kl_is_flow_cps(make):
    trainer = make(sde_type="cps", noise_level=0.8, beta=0.04, kl="mean_squared", scale_rewards="none")
    disturb(trainer)
    trajectory = next(iter(trainer.collect(0).mine.values())).trajectory
    k = trajectory.steps[0]
    out, reference = replay(trainer.policy, trajectory, k), trainer._reference_step(trajectory, k)
    kl = trainer._kl(out, reference, trajectory, k)
    gap = (out.mean - reference.mean).flatten(1)
    assert torch.allclose(kl, gap.norm(dim=1) ** 2 / gap.shape[1]) and bool((kl > 0).all())


@pytest.mark.parametrize("selection", ["first", "random"])
def test_levels_before_the_first_one_are_never_trained(selection):
    config = NFTConfig(num_inference_steps=10, timestep_fraction=0.9, first_timestep=2, timestep_selection=selection)
    found = levels(config, 0, range(40), [0] * 40)
    assert int(found.min()) == 2 and found.shape == (40, 7)
