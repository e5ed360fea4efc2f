"""DiffusionNFT and AWM: golden scalars, where the gradient points, the optimum, and what carries a gradient."""

from __future__ import annotations

import pytest
import torch

from diffalign.losses import forward_process as fp
from diffalign.losses import policy

F64 = torch.float64
MATCHING = [
    fp.uniform_matching,
    fp.linear_matching,
    fp.squared_matching,
    fp.huber_matching,
    fp.generalised_huber_matching,
]


def scalar(value):
    return torch.tensor([[value]], dtype=F64)


def batch(size=5, dim=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    value, old, x0, noise = (torch.randn(size, dim, dtype=F64, generator=generator) for _ in range(4))
    t = torch.linspace(0.1, 1.0, size, dtype=F64)
    label = torch.linspace(0.0, 1.0, size, dtype=F64)
    return value, old, x0, noise, t, label


def slope(loss, value):
    value = value.clone().requires_grad_()
    return torch.autograd.grad(loss(value).sum(), value)[0]


def test_nft_by_hand():
    t, label = torch.tensor([0.6], dtype=F64), torch.tensor([0.8], dtype=F64)

    def loss(v):
        return fp.nft(v, scalar(0.2), scalar(0.5), scalar(1.0), t, label)

    assert float(loss(scalar(0.2))) == pytest.approx(0.18, abs=1e-12)
    assert float(slope(loss, scalar(0.2))) == pytest.approx(-0.72, abs=1e-12)


def test_nft_away_from_the_old_policy_by_hand():
    """v = .4: v+ = .3, v- = .1 at beta = .5; x0 errors .6 (.5 - v+-) = .12 and .24."""
    t, label = torch.tensor([0.6], dtype=F64), torch.tensor([0.25], dtype=F64)
    found = fp.nft(scalar(0.4), scalar(0.2), scalar(0.5), scalar(1.0), t, label, beta=0.5)
    assert float(found) == pytest.approx((0.25 * 0.12 + 0.75 * 0.24) / 0.5, abs=1e-12)


def test_the_weight_of_each_branch_is_its_own_and_detached():
    value, old, x0, noise, t, label = batch()
    found = slope(lambda v: fp.nft(v, old, x0, noise, t, label, beta=0.7), value)
    t_, r = t[:, None], label[:, None]
    good, bad = old + 0.7 * (value - old), old - 0.7 * (value - old)
    target = noise - x0
    size = [(t_ * (target - v)).abs().mean(1, keepdim=True) for v in (good, bad)]
    expected = 2 * t_**2 / value.shape[1] * (r * (good - target) / size[0] - (1 - r) * (bad - target) / size[1])
    assert torch.allclose(found, expected, atol=1e-12)


def test_at_the_old_policy_the_gradient_knows_no_beta_and_follows_the_label():
    _, old, x0, noise, t, _ = batch()

    def found(label, beta):
        labels = torch.full((5,), label, dtype=F64)
        return slope(lambda v: fp.nft(v, old, x0, noise, t, labels, beta=beta), old)

    assert torch.allclose(found(0.9, 1.0), found(0.9, 0.1), atol=1e-12)
    assert torch.allclose(found(0.5, 1.0), torch.zeros(5, 7, dtype=F64), atol=1e-12)
    assert torch.allclose(found(0.9, 1.0), -found(0.1, 1.0), atol=1e-12)
    downhill = (found(0.9, 1.0) * (old - (noise - x0))).sum(1)
    assert bool((downhill > 0).all()), "a good sample pulls the velocity towards its own"


def test_nft_is_advantage_weighted_matching_at_the_old_policy():
    """dL/dv = A' 2 t**2 (v - u) / (w D), A' = 2 r - 1 and w = t mean|v - u|: AWM's gradient times t / mean|v - u|."""
    _, old, x0, noise, t, label = batch()
    found = slope(lambda v: fp.nft(v, old, x0, noise, t, label), old)
    adv = 2 * label - 1
    awm = slope(lambda v: adv * fp.matching_error(v, x0, noise), old)
    size = (old - (noise - x0)).abs().mean(1)
    assert torch.allclose(found, awm * (t / size)[:, None], atol=1e-12)


def test_the_optimum_moves_from_old_by_two_over_beta():
    """v* = v_old + (2 / beta) p+ (E+[u] - v_old), with equal weights: a second element's large error makes them so."""
    u, label, beta, far = torch.tensor([1.0, -0.4], dtype=F64), torch.tensor([0.9, 0.2], dtype=F64), 0.5, 1e9
    old = torch.tensor([[0.3, 0.0]] * 2, dtype=F64)
    noise, x0 = torch.stack([u, torch.full((2,), far, dtype=F64)], 1), torch.zeros(2, 2, dtype=F64)
    ones = torch.ones(2, dtype=F64)

    def slope_at(v):
        value = old.clone()
        value[:, 0] = v
        return float(slope(lambda w: fp.nft(w, old, x0, noise, ones, label, beta=beta), value)[:, 0].sum())

    share, good = float(label.mean()), float((label * u).sum() / label.sum())
    best = 0.3 + 2 / beta * share * (good - 0.3)
    assert slope_at(best - 0.01) < 0 < slope_at(best + 0.01)
    assert abs(slope_at(best)) < 1e-6 * abs(slope_at(best + 1.0))


def test_labels_are_a_half_at_no_advantage_and_saturate_at_the_clip():
    adv = torch.tensor([-9.0, -5.0, -1.0, 0.0, 2.5, 5.0, 9.0])
    assert fp.optimality(adv).tolist() == pytest.approx([0, 0, 0.4, 0.5, 0.75, 1, 1])
    assert fp.optimality(adv, clip=2.5).tolist() == pytest.approx([0, 0, 0.3, 0.5, 1, 1, 1])
    assert not fp.optimality(adv.requires_grad_()).requires_grad


def test_a_perfect_prediction_has_a_finite_gradient():
    value, old, x0, noise, t, label = batch()
    perfect = noise - x0
    found = slope(lambda v: fp.nft(v, perfect, x0, noise, t, label), perfect)
    assert not found.any()
    for matching in MATCHING:
        grad = slope(lambda v, m=matching: m(fp.matching_error(v, x0, noise), t), perfect)
        assert bool(grad.isfinite().all())


def test_matching_error_is_that_of_the_velocity():
    found = fp.matching_error(torch.tensor([[0.5, 1.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]]))
    assert float(found) == pytest.approx((0.5**2 + 2.0**2) / 2)


@pytest.mark.parametrize(
    ("matching", "expected"),
    [
        (fp.uniform_matching, -0.16),
        (fp.linear_matching, -0.08),
        (fp.squared_matching, -0.04),
        (fp.huber_matching, -0.5 * (0.4 - 1e-5)),
        (fp.generalised_huber_matching, -0.5 * (0.16**0.25 - 10**-2.5) / 0.25),
    ],
)
def test_matching_by_hand(matching, expected):
    found = matching(torch.tensor([0.16], dtype=F64), torch.tensor([0.5], dtype=F64))
    assert float(found) == pytest.approx(expected, abs=1e-8)


def test_generalised_huber_with_power_one_half_is_twice_the_huber():
    error, t = torch.tensor([0.3, 2.0], dtype=F64), torch.tensor([0.2, 0.9], dtype=F64)
    assert torch.allclose(fp.generalised_huber_matching(error, t, power=0.5), 2 * fp.huber_matching(error, t))


def test_on_policy_awm_is_signed_flow_matching():
    value, _, x0, noise, t, _ = batch()
    adv = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=F64)

    def loss(v):
        log_prob = fp.uniform_matching(fp.matching_error(v, x0, noise), t)
        return policy.clip(log_prob - log_prob.detach(), adv, eps_low=1.0)

    assert torch.equal(loss(value), -adv)
    expected = adv[:, None] * 2 * (value - (noise - x0)) / value.shape[1]
    assert torch.allclose(slope(loss, value), expected, atol=1e-12)


def test_awm_with_advantage_one_is_flow_matching():
    value, _, x0, noise, t, _ = batch()

    def loss(v):
        log_prob = fp.uniform_matching(fp.matching_error(v, x0, noise), t)
        return policy.ratio(log_prob - log_prob.detach(), torch.ones(5, dtype=F64))

    plain = slope(lambda v: ((v - (noise - x0)) ** 2).mean(1), value)
    assert torch.allclose(slope(loss, value), plain, atol=1e-12)


def test_only_the_prediction_carries_a_gradient():
    value, old, x0, noise, t, label = (tensor.requires_grad_() for tensor in batch())
    total = fp.nft(value, old, x0, noise, t, label).sum() + fp.matching_error(value, x0, noise).sum()
    grads = torch.autograd.grad(total, (value, old, x0, noise, t, label), allow_unused=True)
    assert grads[0] is not None and all(grad is None for grad in grads[1:])


@pytest.mark.parametrize("matching", MATCHING)
def test_times_carry_no_gradient_and_errors_do(matching):
    error, t = torch.tensor([0.3], requires_grad=True), torch.tensor([0.5], requires_grad=True)
    grads = torch.autograd.grad(matching(error, t).sum(), (error, t), allow_unused=True)
    assert float(grads[0]) < 0 and grads[1] is None


def test_gradient_matches_finite_differences():
    value, _, x0, noise, t, _ = batch(3, 4)
    for matching in MATCHING:
        v = value.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda v, m=matching: m(fp.matching_error(v, x0, noise), t), v)


def test_half_precision_is_widened():
    value, old, x0, noise, t, label = (tensor.bfloat16() for tensor in batch())
    found = fp.nft(value, old, x0, noise, t, label)
    assert found.dtype == torch.float32
    assert torch.equal(found, fp.nft(value.float(), old.float(), x0.float(), noise.float(), t.float(), label.float()))


def test_bad_input_is_refused():
    value, old, x0, noise, t, label = batch()
    with pytest.raises(ValueError, match="must share one shape"):
        fp.nft(value, old[:, :3], x0, noise, t, label)
    with pytest.raises(ValueError, match=r"t must have shape \(5,\)"):
        fp.nft(value, old, x0, noise, t[:3], label)
    with pytest.raises(ValueError, match=r"label must have shape \(5,\)"):
        fp.nft(value, old, x0, noise, t, label[:1])
    with pytest.raises(ValueError, match="label"):
        fp.nft(value, old, x0, noise, t, label + 1)
    with pytest.raises(ValueError, match=r"\bt\b"):
        fp.nft(value, old, x0, noise, t * 1000, label)
    with pytest.raises(ValueError, match="beta"):
        fp.nft(value, old, x0, noise, t, label, beta=0.0)
    with pytest.raises(ValueError, match="floating"):
        fp.matching_error(value.long(), x0.long(), noise.long())
    with pytest.raises(ValueError, match="two axes"):
        fp.matching_error(value[0], x0[0], noise[0])
    with pytest.raises(ValueError, match="clip"):
        fp.optimality(t, clip=0.0)
    with pytest.raises(ValueError, match="power"):
        fp.generalised_huber_matching(t, t, power=0.0)
