from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from diffalign.losses import group_advantage, no_scale
from diffalign.losses import scales as S
from diffalign.losses.advantages import group_std
from diffalign.losses.baselines import virtual_center

F64 = torch.float64
NAN = float("nan")


def rewards(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=F64)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_group_wrong_throughout_is_pushed_down(size: int) -> None:
    zeros = torch.zeros(1, size, dtype=F64)
    adv = group_advantage(zeros, center=virtual_center, scale=S.virtual_scale, eps=0.0)
    assert adv[0].tolist() == pytest.approx([-1 / math.sqrt(size + 1)] * size)
    biased = partial(S.virtual_scale, unbiased=False)
    adv = group_advantage(zeros, center=virtual_center, scale=biased, eps=0.0)
    assert adv[0].tolist() == pytest.approx([-1 / math.sqrt(size)] * size)


def test_a_group_right_throughout_gets_nothing_and_no_virtual_sample_is_grpo() -> None:
    adv = group_advantage(
        rewards([0.7] * 3), center=partial(virtual_center, r_max=0.7), scale=partial(S.virtual_scale, r_max=0.7)
    )
    assert adv.tolist() == [[0.0] * 3]
    r = torch.randn(2, 4, dtype=F64)
    none = group_advantage(r, center=partial(virtual_center, n=0), scale=partial(S.virtual_scale, n=0))
    assert torch.allclose(none, group_advantage(r), atol=1e-12)


def test_virtual_std_by_hand() -> None:
    r, all_in = rewards([0, 2]), torch.ones(1, 2).bool()
    assert S.virtual_scale(r, all_in, 0.5, r_max=4.0).item() == pytest.approx(2.5)
    assert S.virtual_scale(r, all_in, 0.0, n=2, r_max=4.0, unbiased=False).item() == pytest.approx(2.75**0.5)


def test_absolute_advantages_sum_to_the_group() -> None:
    adv = group_advantage(rewards([1, 2, 6], [0, 0, 9]), scale=S.mean_abs, eps=0.0)
    assert adv[0].tolist() == pytest.approx([-1.0, -0.5, 1.5]) and adv.abs().sum(1).tolist() == pytest.approx([3, 3])
    assert S.mean_abs(rewards([1, 2, 6]), torch.ones(1, 3).bool(), 0.25).item() == pytest.approx(2.25)
    holed = group_advantage(rewards([1, NAN, 2, 6], [NAN] * 4), scale=S.mean_abs, eps=0.0)
    assert holed[0].tolist() == pytest.approx([-1.0, 0, -0.5, 1.5]) and holed[1].tolist() == [0.0] * 4
    assert (group_advantage(rewards([0.1] * 7), scale=S.mean_abs, eps=1e-30) == 0).all()


def beta_pdf(p: float, a: float, b: float) -> float:
    norm = math.gamma(a) * math.gamma(b) / math.gamma(a + b)
    return p ** (a - 1) * (1 - p) ** (b - 1) / norm


def test_beta_density_by_hand() -> None:
    r = rewards([0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0.5, 0.25, 0.25, 0.2])
    rate = r.mean(1)
    mean, var = 0.45, ((rate - 0.45) ** 2).sum().item() / 3
    size = mean * (1 - mean) / var - 1
    a, b = 1 + mean * size / 3, 1 + (1 - mean) * size / 3
    assert a > 1.2 and b > 1.2
    want = [beta_pdf(p, a, b) for p in rate.tolist()]
    assert S.beta_density(r, torch.ones_like(r).bool(), 1e-6)[:, 0].tolist() == pytest.approx(want)
    adv = group_advantage(r, scale=S.beta_density)
    assert adv[0].tolist() == pytest.approx([-0.25 / want[0]] * 2 + [0.75 / want[0], -0.25 / want[0]])


def test_a_wide_spread_of_rates_is_flat() -> None:
    r = rewards([0, 0], [1, 1], [0, 0], [1, 1])  # moments ask for less than 1
    assert S.beta_density(r, torch.ones_like(r).bool(), 1e-6)[:, 0].tolist() == pytest.approx([1.0] * 4)
    lopsided = rewards([0, 0], [0, 1], [0, 0], [1, 1])
    adv = group_advantage(lopsided, scale=S.beta_density)
    assert torch.isfinite(adv).all()


def test_rates_without_spread_are_only_centred() -> None:
    for r in (rewards([0, 1, 1]), rewards([0, 1], [1, 0], [0, 1])):
        assert torch.allclose(group_advantage(r, scale=S.beta_density), group_advantage(r, scale=no_scale), atol=1e-12)


def test_three_halves_is_grpo_up_to_a_factor() -> None:
    rate = torch.tensor([0.1, 0.4, 0.8], dtype=F64)
    a = torch.tensor([1.5], dtype=F64)
    density = [beta_pdf(p, 1.5, 1.5) for p in rate.tolist()]
    assert density == pytest.approx((8 / math.pi * (rate * (1 - rate)).sqrt()).tolist())
    spread = (0.25 / 4) ** 0.5 * 2**-0.5  # two rates .5 +- d whose moments give a = b = 1.5
    r = rewards([0.5 - spread], [0.5 + spread])
    fit_a, fit_b = S._beta_fit(r[:, 0])
    size = 0.25 / (2 * spread**2) - 1
    assert fit_a.item() == pytest.approx(1 + size / 6) and fit_b.item() == pytest.approx(1 + size / 6)
    assert fit_a.item() == pytest.approx(a.item())


def test_unusable_groups_leave_the_fit_and_the_floor_holds() -> None:
    r = rewards([0, 1, 1], [0, 0, 1], [0.5, 0.5, 0.2])
    more = torch.cat([r, rewards([NAN] * 3)])
    adv = group_advantage(more, scale=S.beta_density)
    assert torch.allclose(adv[:3], group_advantage(r, scale=S.beta_density), atol=1e-12) and (adv[3] == 0).all()
    tight = rewards([0, 0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.45])
    floor = S.beta_density(tight, torch.ones_like(tight).bool(), 0.3)
    assert floor.min().item() == pytest.approx(0.3) and floor.shape == (4, 1)
    assert S.beta_density(tight, torch.ones_like(tight).bool(), 1e-6).min().item() == pytest.approx(1e-6)
    assert group_std(r, torch.ones_like(r).bool(), 0.0).shape == (3, 1)


@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_rewards_outside_the_unit_interval_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        group_advantage(rewards([0, bad]), scale=S.beta_density)
