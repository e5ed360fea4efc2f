from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import group_advantage, group_std, masked_mean, policy

LOSSES = [policy.reinforce, policy.ratio, policy.clip, policy.dual_clip]
F64 = torch.float64


def gradient(loss, x: Tensor, adv: Tensor, **kwargs: object) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, adv, **kwargs).sum(), x)[0]


@pytest.mark.parametrize("loss", LOSSES)
def test_on_policy_gradient_is_the_score_function(loss) -> None:
    adv = torch.tensor([2.0, -3.0, 0.0], dtype=F64)
    assert torch.equal(gradient(loss, torch.zeros(3, 4, dtype=F64), adv), -adv[:, None].expand(3, 4))


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_on_policy_value_is_minus_the_advantage(loss) -> None:
    adv = torch.tensor([2.0, -3.0, 0.0], dtype=F64)
    assert torch.equal(loss(torch.zeros(3, dtype=F64), adv), -adv)


@pytest.mark.parametrize(
    ("ratio", "adv", "kept"),
    [(1.3, 1.0, False), (0.7, 1.0, True), (1.3, -1.0, True), (0.7, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_clip_drops_the_gradient_only_where_the_move_is_already_made(ratio: float, adv: float, kept: bool) -> None:
    grad = gradient(
        policy.clip, torch.tensor([math.log(ratio)], dtype=F64), torch.tensor([adv], dtype=F64), eps_low=0.2
    )
    assert grad.item() == pytest.approx(-adv * ratio if kept else 0.0, abs=1e-12)


def test_clip_is_a_hinge_around_the_target_ratio() -> None:
    rho, adv = torch.rand(200, dtype=F64) * 2 + 0.01, torch.randn(200, dtype=F64)
    target = 1 + 0.2 * adv.sign()
    hinge = adv.abs() * torch.relu(adv.sign() * (target - rho)) - adv * target
    assert torch.allclose(policy.clip(rho.log(), adv, eps_low=0.2), hinge, atol=1e-12)


def test_sides_of_the_clip_are_separate() -> None:
    x, adv = torch.tensor([1.25, 0.85], dtype=F64).log(), torch.tensor([1.0, -1.0], dtype=F64)
    assert policy.clip(x, adv, eps_low=0.1, eps_high=0.3).tolist() == pytest.approx([-1.25, 0.9])
    assert policy.clip(x, adv, eps_low=0.1).tolist() == pytest.approx([-1.1, 0.9])


def test_a_wide_clip_is_the_plain_ratio() -> None:
    x, adv = torch.randn(5, 3, dtype=F64), torch.randn(5, dtype=F64)
    wide = policy.clip(x, adv, eps_low=1.0, eps_high=1e12)
    assert torch.allclose(wide, policy.ratio(x, adv), atol=1e-12)


def test_a_clip_range_per_step_is_the_same_as_step_by_step() -> None:
    x, adv = torch.randn(6, 3, dtype=F64) * 0.2, torch.randn(6, dtype=F64)
    eps = torch.tensor([0.05, 0.1, 0.2], dtype=F64)
    parts = [policy.clip(x[:, k], adv, eps_low=eps[k].item(), eps_high=2 * eps[k].item()) for k in range(3)]
    assert torch.equal(policy.clip(x, adv, eps_low=eps, eps_high=2 * eps), torch.stack(parts, 1))


def test_dual_clip_bounds_bad_samples_only() -> None:
    x = torch.tensor([10.0, 2.0, 10.0], dtype=F64).log()
    adv = torch.tensor([-1.0, -1.0, 1.0], dtype=F64)
    assert policy.dual_clip(x, adv, bound=3.0).tolist() == pytest.approx([3.0, 2.0, -1.2])
    assert gradient(policy.dual_clip, x, adv, bound=3.0).tolist() == pytest.approx([0.0, 2.0, 0.0])
    assert torch.equal(policy.dual_clip(x, adv, bound=1e9), policy.clip(x, adv))


@pytest.mark.parametrize("loss", LOSSES)
def test_advantages_carry_no_gradient_and_log_ratios_do(loss) -> None:
    x, adv = torch.zeros(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    grads = torch.autograd.grad(loss(x, adv).sum(), (x, adv), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is None


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_matches_finite_differences(loss) -> None:
    torch.manual_seed(1)
    x = (torch.randn(4, 3, dtype=F64) * 0.5).requires_grad_()
    adv = torch.randn(4, dtype=F64)
    assert torch.autograd.gradcheck(lambda x: loss(x, adv), x)


@pytest.mark.parametrize("loss", LOSSES)
def test_corners_are_finite(loss) -> None:
    x = torch.tensor([[-1e4, -50.0, 0.0, 50.0, 1e4]]).repeat(3, 1).requires_grad_()
    out = loss(x, torch.tensor([1.0, 0.0, -1.0]))
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(out).all() and torch.isfinite(grad).all()
    assert (out[1] == 0).all() and (grad[1] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_masked_slots_neither_leak_nor_learn(loss) -> None:
    mask = torch.tensor([[1, 0, 1], [0, 0, 0]])
    x = torch.where(mask.bool(), 0.05, float("nan")).requires_grad_()
    adv = torch.where(mask.bool(), -2.0, float("inf"))
    out = loss(x, adv, mask=mask)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert (out[mask == 0] == 0).all() and (grad[mask == 0] == 0).all()
    assert torch.isfinite(out).all() and (grad[mask == 1] > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(loss, dtype: torch.dtype) -> None:
    x, adv = torch.tensor([0.5, -0.25], dtype=dtype), torch.tensor([1.0, -2.0], dtype=dtype)
    out = loss(x, adv)
    assert out.dtype == torch.float32 and torch.equal(out, loss(x.float(), adv.float()))


@pytest.mark.parametrize("loss", LOSSES)
def test_one_shape_and_keyword_only_knobs(loss) -> None:
    positional = [p.name for p in inspect.signature(loss).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert positional == ["log_ratio", "adv"]
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        loss(torch.zeros(2, 3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        loss(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="mask"):
        loss(torch.zeros(2, 3), torch.zeros(2), mask=torch.ones(2))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="eps_low"):
        policy.clip(torch.zeros(2), torch.zeros(2), eps_low=-0.1)
    with pytest.raises(ValueError, match="eps_high"):
        policy.clip(torch.zeros(2), torch.zeros(2), eps_high=float("nan"))
    with pytest.raises(ValueError, match="bound"):
        policy.dual_clip(torch.zeros(2), torch.zeros(2), bound=1.0)


def test_order_of_steps_does_not_matter() -> None:
    torch.manual_seed(2)
    x = (torch.randn(4, 6, dtype=F64) * 0.3).requires_grad_()
    adv, order = torch.randn(4, dtype=F64), torch.randperm(6)
    ordered = torch.autograd.grad(policy.clip(x, adv).sum(), x)[0]
    shuffled = torch.autograd.grad(policy.clip(x[:, order], adv).sum(), x)[0]
    assert torch.equal(ordered, shuffled)


def test_chain_from_rewards_to_gradient() -> None:
    """Equal rewards teach nothing; a better sample's log-prob is raised and a worse one's lowered, by equal amounts."""
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.5, 1.0]], dtype=F64)
    x = torch.zeros(6, 2, dtype=F64, requires_grad=True)
    adv = group_advantage(rewards, scale=group_std).flatten()
    (grad,) = torch.autograd.grad(masked_mean(policy.clip(x, adv, eps_low=1e-4)), x)
    assert (grad[:3] == 0).all()
    assert grad[3:, 0].tolist() == pytest.approx([1 / 12, 0.0, -1 / 12], abs=1e-6)


def test_default_bounds() -> None:
    far, bad = torch.tensor([30.0], dtype=F64), torch.tensor([-1.0], dtype=F64)
    assert policy.ratio(far, bad).item() == pytest.approx(math.exp(20.0))
    assert policy.clip(far, bad).item() == pytest.approx(math.exp(20.0))
    assert policy.dual_clip(far, bad).item() == pytest.approx(3.0)
    assert policy.dual_clip(far, bad, bound=1.5).item() == pytest.approx(1.5)
    assert policy.dual_clip(far, -0.5 * bad, bound=1.5).item() == pytest.approx(-0.6)  # a good sample: only the clip


@pytest.mark.parametrize(
    ("log_ratio", "adv", "kl", "kept"),
    [
        (0.01, 1.0, 2e-5, False),  # further out, beyond the limit
        (-0.01, -1.0, 2e-5, False),
        (-0.01, 1.0, 2e-5, True),  # on its way back
        (0.01, -1.0, 2e-5, True),
        (0.01, 1.0, 0.5e-5, True),  # inside the limit
        (5.0, 1.0, 0.5e-5, True),  # no ratio is clipped
        (0.01, 1.0, 1e-5, True),
        (0.0, 1.0, 2e-5, True),
    ],
)
def test_kl_mask_holds_steps_that_would_go_on_outwards(log_ratio: float, adv: float, kl: float, kept: bool) -> None:
    x, a, k = (torch.tensor([value], dtype=F64) for value in (log_ratio, adv, kl))
    grad = gradient(policy.kl_mask, x, a, kl=k)
    assert grad.item() == pytest.approx(-adv * math.exp(log_ratio) if kept else 0.0, abs=1e-12)
    assert policy.kl_mask(x, a, kl=k).item() == pytest.approx(-adv * math.exp(log_ratio), rel=1e-12)


def test_kl_mask_knows_its_mask_its_shapes_and_its_limit() -> None:
    x, adv, kl = torch.tensor([[0.5, math.nan]]), torch.ones(1), torch.tensor([[1.0, math.nan]])
    found = policy.kl_mask(x, adv, kl=kl, limit=2.0, mask=torch.tensor([[1, 0]]))
    assert found.tolist() == [[pytest.approx(-math.exp(0.5)), 0.0]]
    assert gradient(policy.kl_mask, x, adv, kl=kl, limit=0.5, mask=torch.tensor([[1, 0]])).tolist() == [[0.0, 0.0]]
    far = policy.kl_mask(torch.tensor([1e4], dtype=F64), torch.ones(1), kl=torch.ones(1))
    assert far.item() == pytest.approx(-math.exp(20))
    with pytest.raises(ValueError, match="limit"):
        policy.kl_mask(torch.zeros(2), torch.zeros(2), kl=torch.zeros(2), limit=-1.0)
    with pytest.raises(ValueError, match="kl must have the shape"):
        policy.kl_mask(torch.zeros(2, 3), torch.zeros(2), kl=torch.zeros(2))


def test_kl_mask_carries_no_gradient_to_kl_or_advantage() -> None:
    x, adv, kl = (torch.full((2,), value, requires_grad=True) for value in (0.0, 1.0, 1.0))
    grads = torch.autograd.grad(policy.kl_mask(x, adv, kl=kl).sum(), (x, adv, kl), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is None and grads[2] is None
