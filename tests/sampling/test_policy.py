"""Guidance rules: what each preserves, at one scale and at one per sample."""

from __future__ import annotations

import pytest
import torch

from diffalign.sampling import linear_guidance, norm_capped, norm_rescaled, std_rescaled

GENERATOR = torch.Generator().manual_seed(0)
COND, UNCOND = (torch.randn(3, 4, 6, 5, generator=GENERATOR) for _ in range(2))
SCALES = torch.tensor([1.0, 4.0, 7.5]).reshape(3, 1, 1, 1)
RULES = {
    "linear": linear_guidance,
    "std": lambda c, u, s: std_rescaled(c, u, s, 0.7),
    "norm": norm_rescaled,
    "packed": lambda c, u, s: norm_rescaled(c, u, s, view=lambda v: v.flatten(2).transpose(1, 2)),
    "capped": lambda c, u, s: norm_capped(c, u, s, 1.2),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_scale_per_sample_is_each_sample_at_its_scale(rule):
    together = rule(COND, UNCOND, SCALES)
    for row, scale in enumerate(SCALES.flatten().tolist()):
        alone = rule(COND[row : row + 1], UNCOND[row : row + 1], scale)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [rule for name, rule in RULES.items() if name != "packed"])
def test_scale_one_is_the_conditional_branch(rule):
    torch.testing.assert_close(rule(COND, UNCOND, 1.0), COND, rtol=1e-5, atol=1e-5)


def test_rescaling_keeps_the_conditional_std_and_norms():
    dims = (1, 2, 3)
    torch.testing.assert_close(std_rescaled(COND, UNCOND, 6.0, 1.0).std(dims), COND.std(dims))
    assert torch.equal(std_rescaled(COND, UNCOND, 6.0, 0.0), linear_guidance(COND, UNCOND, 6.0))
    torch.testing.assert_close(norm_rescaled(COND, UNCOND, 6.0).norm(dim=-1), COND.norm(dim=-1))
    torch.testing.assert_close(norm_rescaled(COND, UNCOND, 6.0, dim=1).norm(dim=1), COND.norm(dim=1))
    capped, free = norm_capped(COND, UNCOND, 6.0, 1.2), linear_guidance(COND, UNCOND, 6.0)
    torch.testing.assert_close(capped.flatten(1).norm(dim=1), 1.2 * COND.flatten(1).norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(capped.flatten(1), free.flatten(1)), torch.ones(3))
    assert torch.equal(norm_capped(COND, UNCOND, 6.0, 100.0), free)


@pytest.mark.parametrize("flag", [{}, {"uncond_grad": False}])
def test_guided_predictions_carry_both_graphs_by_default(toy, flag):
    x, t = torch.randn(2, *toy.latent_shape), torch.full((2,), 500.0)
    cond, uncond = toy.encode(["a", "b"]), toy.encode(["", ""], negative=True)
    weights = list(toy.net.parameters())
    found = torch.autograd.grad(toy.guided(x, t, cond, uncond, 3.0, **flag).sum(), weights)
    first, second = (torch.autograd.grad(toy.predict(x, t, c).sum(), weights) for c in (cond, uncond))
    expected = [3 * a - (0 if flag else 2) * b for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(list(found), expected, rtol=1e-4, atol=1e-5)
    calls = len(toy.calls)
    toy.guided(x, t, cond, None, 3.0)
    assert len(toy.calls) == calls + 1 and toy.needs_negative(1.1) and not toy.needs_negative(1.0)


def test_guidance_of_half_precision_branches_is_in_full_precision():
    half = [value.bfloat16() for value in (COND, UNCOND)]
    for rule in RULES.values():
        found = rule(*half, 5.0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, rule(*(value.float() for value in half), 5.0))
    assert linear_guidance(COND.double(), UNCOND.double(), 2.0).dtype == torch.float64
