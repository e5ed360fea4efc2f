from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import policy, policy_metrics
from diffalign.losses.metrics import preference_metrics


def metrics(ratios: list[float], adv: list[float], **kwargs: object) -> dict[str, float]:
    kwargs = {"eps_low": 0.2, **kwargs}
    log_ratio = torch.tensor(ratios, dtype=torch.float64).log()
    return {k: v.item() for k, v in policy_metrics(log_ratio, torch.tensor(adv), **kwargs).items()}


def test_on_policy_is_clean() -> None:
    assert metrics([1.0, 1.0], [1.0, -1.0]) == {
        "ratio_mean": 1, "ratio_std": 0, "clip_frac_high": 0, "clip_frac_low": 0,
        "log_ratio_abs_mean": 0, "log_ratio_abs_max": 0, "approx_kl": 0, "ess": 1,
    }  # fmt: skip


def test_values_by_hand() -> None:
    m = metrics([2.0, 0.5], [1.0, 1.0])
    assert m["ratio_mean"] == pytest.approx(1.25) and m["ratio_std"] == pytest.approx(0.75)
    assert m["ess"] == pytest.approx(2.5**2 / (2 * 4.25))
    assert m["log_ratio_abs_mean"] == m["log_ratio_abs_max"] == pytest.approx(math.log(2))


def test_approx_kl_is_that_of_the_old_policy_against_the_new_one() -> None:
    old, new = [0.5, 0.5], [0.9, 0.1]  # both outcomes once each, as often as the old policy draws them
    kl = sum(p * math.log(p / q) for p, q in zip(old, new, strict=True))
    ratios = [q / p for p, q in zip(old, new, strict=True)]
    assert metrics(ratios, [0.0, 0.0])["approx_kl"] == pytest.approx(kl)


def test_only_the_side_that_loses_its_gradient_counts() -> None:
    m = metrics([1.5, 1.5, 0.5, 0.5, 1.0], [1.0, -1.0, -1.0, 1.0, 1.0])
    assert m["clip_frac_high"] == pytest.approx(0.2) and m["clip_frac_low"] == pytest.approx(0.2)
    assert metrics([1.5, 0.5], [-1.0, 1.0])["clip_frac_high"] == metrics([1.5, 0.5], [-1.0, 1.0])["clip_frac_low"] == 0


def test_clip_fractions_count_exactly_the_zero_gradients_of_the_loss() -> None:
    torch.manual_seed(0)
    x = (torch.randn(40, 5, dtype=torch.float64) * 0.3).requires_grad_()
    adv = torch.randn(40, dtype=torch.float64)
    (grad,) = torch.autograd.grad(policy.clip(x, adv, eps_low=0.1, eps_high=0.3).sum(), x)
    m = policy_metrics(x, adv, eps_low=0.1, eps_high=0.3)
    assert (m["clip_frac_high"] + m["clip_frac_low"]).item() == pytest.approx((grad == 0).double().mean().item())
    assert 0 < m["clip_frac_high"] < m["clip_frac_low"]


def test_upper_range_defaults_to_the_lower_one() -> None:
    assert metrics([1.25], [1.0])["clip_frac_high"] == 1
    assert metrics([1.25], [1.0], eps_high=0.3)["clip_frac_high"] == 0
    assert metrics([0.79], [-1.0], eps_high=0.3)["clip_frac_low"] == 1
    assert metrics([0.81], [-1.0], eps_high=0.1)["clip_frac_low"] == 0


def test_at_a_bound_nothing_is_clipped_yet() -> None:
    for adv in (1.0, -1.0):
        at = metrics([1.0], [adv], eps_low=0.0)
        assert at["clip_frac_high"] == at["clip_frac_low"] == 0
    for ratio in (2.0, 0.5):
        idle = metrics([ratio], [0.0])
        assert idle["clip_frac_high"] == idle["clip_frac_low"] == 0


def test_ratios_are_held_where_the_exponential_would_run_away() -> None:
    assert metrics([math.exp(25)], [1.0])["ratio_mean"] == pytest.approx(math.exp(20))
    assert metrics([math.exp(-25)], [1.0])["ratio_mean"] == pytest.approx(math.exp(-20))


def test_masked_entries_do_not_count() -> None:
    x = torch.tensor([[0.1, float("nan")], [float("inf"), -0.2]])
    adv = torch.tensor([1.0, -1.0])
    masked = policy_metrics(x, adv, mask=torch.tensor([[1, 0], [0, 1]]), eps_low=0.1)
    plain = policy_metrics(torch.tensor([0.1, -0.2]), adv, eps_low=0.1)
    assert {k: v.item() for k, v in masked.items()} == pytest.approx({k: v.item() for k, v in plain.items()})


def test_nothing_valid_gives_zeros_and_far_out_is_finite() -> None:
    empty = policy_metrics(torch.full((2, 2), float("nan")), torch.ones(2), mask=torch.zeros(2, 2), eps_low=0.1)
    assert all(v.item() == 0 for v in empty.values())
    far = policy_metrics(torch.tensor([-50.0, 50.0]), torch.ones(2), eps_low=0.1)
    assert all(math.isfinite(v.item()) for v in far.values())


def test_nothing_carries_a_gradient() -> None:
    out = policy_metrics(torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True), eps_low=0.1)
    assert not any(v.requires_grad or v.ndim for v in out.values())


def pairs(w: list[float], k: list[float], **kwargs: object) -> dict[str, float]:
    w, k = torch.tensor(w, dtype=torch.float64), torch.tensor(k, dtype=torch.float64)
    return {k: v.item() for k, v in preference_metrics(w, k, **kwargs).items()}


def test_pairs_by_hand() -> None:
    assert pairs([2.0, -1.0, 0.5], [1.0, 0.5, 0.5], beta=0.5, margin=0.25) == pytest.approx({
        "accuracy": 0.5, "score_w_mean": 0.5, "score_l_mean": 2 / 3, "gap_mean": -1 / 6, "z_mean": -1 / 3,
        "prob_mean": (0.5621765 + 0.2689414 + 0.4378235) / 3,
    }, abs=1e-7)  # fmt: skip


def test_pairs_before_the_first_step_say_a_half() -> None:
    m = pairs([0.3, -2.0], [0.3, -2.0])
    assert m["accuracy"] == m["prob_mean"] == 0.5 and m["z_mean"] == m["gap_mean"] == 0


def test_pairs_count_ties_half_and_the_rest_whole() -> None:
    assert pairs([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0])["accuracy"] == 0.625
    assert pairs([1.0], [0.0], margin=5.0)["accuracy"] == 1 and pairs([1.0], [0.0], margin=5.0)["z_mean"] == -4


def test_pairs_defaults_masks_and_gradients() -> None:
    assert pairs([1.0], [0.25])["z_mean"] == 0.75
    w = torch.tensor([[0.1, float("nan")], [float("inf"), -0.2]], requires_grad=True)
    out = preference_metrics(w, torch.zeros(2, 2), mask=torch.tensor([[1, 0], [0, 1]]))
    assert out["score_w_mean"].item() == pytest.approx(-0.05) and out["accuracy"].item() == 0.5
    assert out["prob_mean"].item() == pytest.approx(torch.tensor([0.1, -0.2]).sigmoid().mean().item())
    assert not any(v.requires_grad or v.ndim for v in out.values())
    assert not any(v.requires_grad for v in preference_metrics(torch.zeros(2, 2), w).values())
    empty = preference_metrics(w, w, mask=torch.zeros(2, 2))
    assert all(v.item() == 0 for v in empty.values())
    with pytest.raises(ValueError, match=r"score_l \(1,\)"):
        preference_metrics(torch.zeros(2), torch.zeros(1))
