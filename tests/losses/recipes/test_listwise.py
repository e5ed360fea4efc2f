"""One node per row of the ledger; expected numbers are the papers' formulas, worked out by hand in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffalign.losses import recipes
from diffalign.losses.recipes import listwise

F64 = torch.float64
LABELS = torch.tensor([[1.0, 0.4, 0.0]], dtype=F64)
SCORES = torch.tensor([[0.3, -0.5, 1.2]], dtype=F64)

LOGP = torch.tensor(
    [[[-1.0, -2.0], [-0.5, -1.5], [-3.0, math.nan]], [[-1.2, -0.4], [-2.0, -1.0], [-0.7, -0.9]]], dtype=F64
)
REF = torch.tensor(
    [[[-1.3, -2.5], [-0.2, -1.0], [-2.0, math.nan]], [[-1.0, -0.6], [-2.5, -1.1], [-0.2, -0.4]]], dtype=F64
)
OLD = torch.tensor(
    [[[-1.1, -1.8], [-0.6, -1.5], [-2.8, math.nan]], [[-1.2, -0.5], [-1.9, -1.3], [-0.7, -0.6]]], dtype=F64
)
TOKENS = ~LOGP.isnan()
LEVELS = torch.tensor([[1, 2, 3], [2, 2, 3]])


def trpa(levels: Tensor = LEVELS, **changes: float) -> Tensor:
    return recipes.get("trpa")(LOGP, REF, OLD, levels, mask=TOKENS, **changes)


def test_lipo() -> None:
    """Weights .128539, .532456, .230476 by the ranks 2, 3, 1 of the scores; beta .05."""
    assert recipes.get("lipo")(SCORES / 0.05, LABELS).item() == pytest.approx(1.1390409208765453, abs=1e-7)
    two = torch.tensor([[7.0, -3.0]], dtype=F64)
    dpo = -logsigmoid(torch.tensor(0.5, dtype=F64)).item()  # beta h = .05 * 10
    assert recipes.get("lipo")(two, LABELS[:, [0, 2]]).item() == pytest.approx(0.5324558142621261 * dpo, abs=1e-7)


def test_lipo_moves_from_its_start_and_leaves_what_could_not_be_scored() -> None:
    r = torch.zeros(2, 4, dtype=F64, requires_grad=True)
    labels = torch.tensor([[0.2, 1.0, math.nan, 0.0], [0.5, 0.5, 0.5, 0.5]], dtype=F64)
    loss = recipes.get("lipo")(r, labels, mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]))
    loss.sum().backward()
    assert r.grad[0, 1] < 0 < r.grad[0, 0]
    assert r.grad[0, 2:].tolist() == [0, 0] and r.grad[1].abs().max() == 0 and loss[1] == 0


def test_rankdpo() -> None:
    """Weights .362332, .721348, .060352 by the ranks of the labels; beta 5000 on means over latents."""
    loss = recipes.get("rankdpo")(SCORES / 5000, LABELS)
    assert loss.item() == pytest.approx(1.142490264300947, abs=1e-7)
    phi = torch.tensor([[14.0, 10.0, 5.0, 1.0]], dtype=F64) / 15
    assert recipes.get("rankdpo")(torch.zeros_like(phi), phi).item() == pytest.approx(1.100579, abs=5e-7)
    masked = torch.cat([SCORES, SCORES * math.nan], 1) / 5000
    labels, mask = torch.cat([LABELS, LABELS], 1), torch.tensor([[1, 1, 1, 0, 0, 0]])
    assert recipes.get("rankdpo")(masked, labels, mask=mask).item() == pytest.approx(loss.item(), abs=1e-12)


def test_trpa() -> None:
    """Mean log-ratios .4, -.4, -1 and 0, .3, -.5; five pairs, those of level 1 at 2.5; k3 to the sampler at .001."""
    assert trpa().tolist() == pytest.approx([0.7180577512210823, 0.528979427026412], abs=1e-12)
    assert trpa(kl_coef=0.0).tolist() == pytest.approx([0.7180472551506039, 0.5289626461323504], abs=1e-12)


def test_trpa_without_a_pair_in_the_batch_pushes_level_one_up_and_the_others_down() -> None:
    one_level = trpa(torch.tensor([[1, 1, 1], [2, 2, 2]]))
    assert one_level.tolist() == pytest.approx([0.9131078935098546, 0.6738765839635878], abs=1e-12)
    lonely = recipes.get("trpa")(LOGP[:1, :1, :1], REF[:1, :1, :1], OLD[:1, :1, :1], LEVELS[:1, :1], kl_coef=2.0)
    k3 = math.exp(-0.1) + 0.1 - 1  # one token, of log-ratio .1 to the sampler and .3 to the reference
    assert lonely.item() == pytest.approx(math.log1p(math.exp(-0.3)) + 2 * k3, abs=1e-12)
    some = trpa(torch.tensor([[1, 1, 1], [2, 2, 3]]), kl_coef=0.0)
    assert some[0] == 0 < some[1]  # a pair elsewhere in the batch, and the group without one is silent


def test_trpa_of_two_samples_of_other_levels_is_dpo_on_means() -> None:
    logp, ref = (torch.randn(1, 2, 5, dtype=F64) for _ in range(2))
    loss = recipes.get("trpa")(logp, ref, logp, torch.tensor([[3, 2]]), beta=0.7)
    gap = (logp - ref).mean(2)
    assert torch.allclose(loss, -logsigmoid(0.7 * (gap[:, 1] - gap[:, 0])), atol=1e-12)


def test_trpa_gives_gradients_to_the_policy_alone_and_none_to_empty_samples() -> None:
    logp, ref, old = (torch.randn(1, 3, 4, dtype=F64, requires_grad=True) for _ in range(3))
    mask = torch.ones(1, 3, 4)
    mask[0, 2] = 0
    recipes.get("trpa")(logp, ref, old, torch.tensor([[1, 2, 2]]), mask=mask).sum().backward()
    assert ref.grad is None and old.grad is None
    assert logp.grad[0, :2].abs().min() > 0 and logp.grad[0, 2].abs().max() == 0


def test_brain() -> None:
    logp, ref = torch.tensor([[-1.0, -2.5, -0.3]], dtype=F64), torch.tensor([[-1.2, -2.0, -0.9]], dtype=F64)
    proposal, rewards = torch.tensor([[-1.1, -2.2, -0.5]], dtype=F64), torch.tensor([[1.0, 0.2, -0.4]], dtype=F64)
    brain = recipes.get("brain")
    assert brain(logp, ref, proposal, rewards).item() == pytest.approx(0.22136707471620157, abs=1e-12)
    assert brain(logp, ref, proposal, rewards, gamma=0.5).item() == pytest.approx(0.44946120661120426, abs=1e-12)
    padded = [torch.cat([x, torch.full((1, 2), math.nan, dtype=F64)], 1) for x in (logp, ref, proposal, rewards)]
    padded[3][0, 3] = 5.0
    loss = brain(*padded, mask=torch.tensor([[1, 1, 1, 0, 1]]))  # one masked, one not scored
    assert loss.item() == pytest.approx(0.22136707471620157, abs=1e-12)
    best = (ref + rewards / 2 + 7).requires_grad_()
    at_optimum = brain(best, ref, proposal, rewards, gamma=2.0)
    at_optimum.sum().backward()
    assert at_optimum.item() == pytest.approx(0, abs=1e-12) and best.grad.abs().max() < 1e-12


def test_brain_of_two_from_the_reference_is_dpo_with_a_soft_label() -> None:
    logp = torch.randn(1, 2, dtype=F64, requires_grad=True)
    ref = torch.randn(1, 2, dtype=F64, requires_grad=True)
    rewards = torch.tensor([[0.9, 0.1]], dtype=F64, requires_grad=True)
    recipes.get("brain")(logp, ref, ref, rewards, gamma=0.4).sum().backward()
    h = ((logp - ref)[0, 0] - (logp - ref)[0, 1]).item()
    slope = 1 / (1 + math.exp(-h)) - 1 / (1 + math.exp(-2.0))  # sigmoid(h) - sigmoid(gap / gamma)
    assert logp.grad[0].tolist() == pytest.approx([slope, -slope], abs=1e-12)
    assert ref.grad is None and rewards.grad is None


def test_pro() -> None:
    """Means -.6, -.3, -1 under rewards 1, 3, .2; the best has the sum -.9; c (n - 1)**2 = .2."""
    logp = torch.tensor([[[-0.4, -0.8, math.nan], [-0.1, -0.3, -0.5], [-1.0, math.nan, math.nan]]], dtype=F64)
    rewards, mask = torch.tensor([[1.0, 3.0, 0.2]], dtype=F64), ~logp.isnan()
    pro = recipes.get("pro")
    assert pro(logp, rewards, mask=mask).item() == pytest.approx(1.33486185840281, abs=1e-12)
    assert pro(logp, rewards, mask=mask, sft_coef=0.0).item() == pytest.approx(1.15486185840281, abs=1e-12)
    for order in ([1, 0, 2], [2, 1, 0]):
        assert pro(logp[:, order], rewards[:, order], mask=mask[:, order]).item() == pytest.approx(1.33486185840281)


def test_pro_leaves_what_was_not_scored_and_what_has_no_token() -> None:
    logp = torch.randn(1, 4, 3, dtype=F64, requires_grad=True)
    rewards = torch.tensor([[1.0, math.nan, 9.0, 0.5]], dtype=F64)
    mask = torch.ones(1, 4, 3)
    mask[0, 2] = 0
    loss = recipes.get("pro")(logp, rewards, mask=mask)
    assert torch.allclose(loss, recipes.get("pro")(logp[:, [0, 3]], rewards[:, [0, 3]]), atol=1e-12)
    loss.sum().backward()
    assert logp.grad[0, 1:3].abs().max() == 0
    lonely = recipes.get("pro")(logp, torch.tensor([[1.0, math.nan, math.nan, math.nan]]))
    assert lonely.item() == 0
    beside = recipes.get("pro")(logp.expand(2, 4, 3), torch.tensor([[math.nan] * 4, [2.0, 1.0, math.nan, math.nan]]))
    assert beside[0] == 0 < beside[1]


@pytest.mark.parametrize("size", [50.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_log_probs_stay_finite(size: float, dtype: torch.dtype) -> None:
    logp = torch.tensor([[[-size, -1.0], [-1.0, -2.0], [size, 0.0]]], dtype=dtype, requires_grad=True)
    zero, rewards = torch.zeros_like(logp).detach(), torch.tensor([[1.0, 0.5, 0.2]])
    calls = [
        recipes.get("lipo")(logp.sum(2), rewards),
        recipes.get("rankdpo")(logp.sum(2), rewards),
        recipes.get("trpa")(logp, zero, zero, torch.tensor([[1, 2, 3]])),
        recipes.get("brain")(logp.sum(2), zero[..., 0], zero[..., 0], rewards),
        recipes.get("pro")(logp, rewards),
    ]
    for loss in calls:
        (gradient,) = torch.autograd.grad(loss.sum(), logp, retain_graph=True)
        assert loss.dtype == torch.float32 and loss.isfinite().all() and gradient.isfinite().all()


def test_bad_settings_and_shapes_are_refused() -> None:
    rewards = torch.zeros(1, 3)
    for name, args in (("lipo", (SCORES, LABELS)), ("rankdpo", (SCORES, LABELS))):
        with pytest.raises(ValueError, match="beta"):
            recipes.get(name)(*args, beta=0.0)
        with pytest.raises(ValueError, match="shape"):
            recipes.get(name)(SCORES, LABELS[:, :2])
    for change in ({"beta": 0.0}, {"top_scale": 0.0}, {"kl_coef": -1.0}):
        with pytest.raises(ValueError, match=next(iter(change))):
            trpa(**change)
    with pytest.raises(ValueError, match="shape"):
        recipes.get("trpa")(LOGP, REF, OLD[:, :2], LEVELS)
    with pytest.raises(ValueError, match="gamma"):
        recipes.get("brain")(SCORES, SCORES, SCORES, SCORES, gamma=0.0)
    with pytest.raises(ValueError, match="proposal"):
        recipes.get("brain")(SCORES, SCORES, SCORES[:, :2], SCORES)
    with pytest.raises(ValueError, match="sft_coef"):
        recipes.get("pro")(torch.zeros(1, 3, 2), rewards, sft_coef=-0.1)
    assert listwise.pro(torch.zeros(1, 3, 2), rewards, sft_coef=0.0).item() == pytest.approx(math.log(6))
