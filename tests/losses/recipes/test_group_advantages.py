"""Advantage estimators are those of TRL, verl and flow_grpo."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffalign.losses import recipes
from tests.losses.released import F64, REWARDS, f64

LENGTH = torch.tensor([[4, 2, 3], [1, 4, 2]])
SECOND = f64([3.0, 0.0, 1.0], [5.0, 5.0, 8.0])
NAN = float("nan")
# name: arguments, settings, advantages; verl 0.9.1 core_algos.py unless said otherwise
RELEASED: dict[str, tuple[tuple[Any, ...], dict[str, Any], list[float]]] = {
    # TRL 1.16.0 grpo_trainer.py, scale_rewards="group"
    "grpo-advantage": ((), {}, [-0.87281442, -0.21820361, 1.09101803, -1.15450057, 0.57725029, 0.57725029]),
    # yifan123/flow_grpo, global_std
    "flow-grpo-advantage": ((), {}, [-1.05954168, -0.26488542, 1.3244271, -0.52977084, 0.26488542, 0.26488542]),
    "dr-grpo-advantage": ((), {}, [-4 / 3, -1 / 3, 5 / 3, -2 / 3, 1 / 3, 1 / 3]),
    "rloo-advantage": ((), {}, [-2.0, -0.5, 2.5, -1.0, 0.5, 0.5]),
    "gpg-advantage": ((), {}, [-1.6, -0.4, 2.0, -0.8, 0.4, 0.4]),
    "grpo-passk": ((), {}, [0, 0, 1.30930648, 0, 0, 0]),
    "opo": ((LENGTH,), {}, [-1.22222222, -0.22222222, 1.77777778, -0.85714286, 0.14285714, 0.14285714]),
    # TRL 1.16.0 grpo_trainer.py, normalize_then_sum, weights 1 and .5
    "gdpo": (([1.0, 0.5],), {}, [-0.327311, -0.654622, 0.981934, -1.443185, 0.288597, 1.154588]),
}


def call(name: str, rewards: torch.Tensor = REWARDS, **changes: Any) -> torch.Tensor:
    more, settings, _ = RELEASED[name]
    found: torch.Tensor = recipes.get(name)(rewards, *more, **{**settings, **changes})
    return found


@pytest.mark.parametrize("name", RELEASED)
def test_released_values(name: str) -> None:
    rewards = torch.stack([REWARDS, SECOND]) if name == "gdpo" else REWARDS
    assert call(name, rewards).flatten().tolist() == pytest.approx(RELEASED[name][2], abs=1e-6)


def test_the_kind_of_std_and_eps_are_arguments() -> None:
    """verl: eps 1e-6; TRL's scale_rewards="batch": unbiased."""
    verl = [-0.87287099, -0.21821775, 1.09108874, -1.15469854, 0.57734927, 0.57734927]
    assert call("grpo-advantage", eps=1e-6).flatten().tolist() == pytest.approx(verl, abs=1e-8)
    trl = [-0.9672315, -0.24180787, 1.20903937, -0.48361575, 0.24180787, 0.24180787]
    assert call("flow-grpo-advantage", unbiased=True).flatten().tolist() == pytest.approx(trl, abs=1e-8)
    population = call("grpo-advantage", unbiased=False, eps=0.0)
    assert torch.allclose(population.square().mean(1), torch.ones(2, dtype=F64))
    assert torch.allclose(call("grpo-passk", unbiased=False, eps=0.0)[0, 2], f64(2.0)[0] / REWARDS[0].std(correction=0))


def test_clips() -> None:
    assert call("grpo-advantage", clip=0.5).abs().max() == 0.5
    outlier = torch.cat([torch.zeros(1, 99), torch.full((1, 1), 9.0)], 1)
    assert recipes.get("flow-grpo-advantage")(outlier).max() == 5.0


@pytest.mark.parametrize("name", [name for name in RELEASED if name not in ("gdpo", "opo")])
def test_samples_without_a_reward_leave_the_group(name: str) -> None:
    holes = f64([1.0, NAN, 2.0, 4.0], [0.0, 1.0, 1.0, NAN])
    found = call(name, holes)
    kept = torch.isfinite(holes)
    assert torch.allclose(found[kept], call(name).flatten(), atol=1e-9) and (found[~kept] == 0).all()
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0]])
    assert torch.equal(call(name, holes.nan_to_num(nan=50.0), mask=mask), found)


def test_pass_at_k_needs_two_samples_and_gives_nothing_for_a_tie() -> None:
    assert (recipes.get("grpo-passk")(f64([2.0, 2.0, 1.0])) == 0).all()
    assert (recipes.get("grpo-passk")(f64([2.0, NAN])) == 0).all()
    assert not recipes.get("grpo-passk")(f64([2.0, 1.0]).requires_grad_()).requires_grad
    with pytest.raises(ValueError, match="two best"):
        recipes.get("grpo-passk")(f64([1.0]))


def test_gpg_counts_non_zero_rewards() -> None:
    assert (recipes.get("gpg-advantage")(torch.zeros(2, 3)) == 0).all()
    assert recipes.get("gpg-advantage")(f64([0.0, 4.0])).tolist() == [[-4.0, 4.0]]


def test_opos_baseline_is_the_mean_for_equal_lengths() -> None:
    same = recipes.get("opo")(REWARDS, torch.full((2, 3), 7))
    assert torch.allclose(same, call("dr-grpo-advantage"))
