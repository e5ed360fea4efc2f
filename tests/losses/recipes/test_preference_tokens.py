"""Pair losses on token log-probs: TRL's numbers, masks, and the methods that they reduce to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes
from diffalign.losses.recipes.preference_tokens import log_odds
from tests.losses.released import F64, MASK_L, MASK_W, R_L, R_W, TOKENS_L, TOKENS_W, f64

GOLD = f64([-0.3, -0.6, -0.1, 0.0], [-0.9, -0.2, -0.4, -0.7], [-0.5, 0.0, 0.0, 0.0])
MASK_GOLD = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
REF_W = TOKENS_W + f64([0.1, -0.2, 0.3, 0.4], [-0.1, 0.2, 0.0, 0.0], [0.2, 0.1, -0.3, 0.0])
REF_L = TOKENS_L + f64([0.3, -0.1, 0.0, 0.0], [0.1, 0.2, -0.2, 0.1], [0.5, 0.0, 0.0, 0.0])
SQ_W = f64([-0.6, -1.2, -0.3, -0.9], [-1.3, -0.5, 0.0, 0.0], [-0.7, -0.8, -0.2, 0.0])
SQ_L = f64([-1.0, -0.8, 0.0, 0.0], [-0.4, -0.9, -1.1, -0.6], [-1.5, 0.0, 0.0, 0.0])
MASKS = {"mask_w": MASK_W, "mask_l": MASK_L}
GOLDEN = {"logp_gold": GOLD, "mask_gold": MASK_GOLD, "alpha": 0.7, "beta": 0.3}
RELEASED: dict[str, tuple[tuple[Tensor, ...], dict[str, Any], list[float]]] = {
    "cpo": ((), {"beta": 0.3, "flip": 0.1}, [1.4296633, 1.22756547, 1.25852506]),
    "cpo-hinge": ((), {"beta": 0.3}, [1.87333333, 1.36333333, 1.45333333]),
    "cpo-ipo": ((), {"tau": 0.3}, [2.71173611, 4.21173611, 0.65111111]),
    "orpo": ((), {"beta": 0.3}, [0.7832231, 0.90990294, 0.66003214]),
    "tpo": ((), GOLDEN, [1.14407997, 0.89098214, 0.93094172]),
    "tpo-l": ((), {**GOLDEN, "gamma": 0.5}, [1.25634921, 1.34037532, 1.03709717]),
    "ld-dpo": ((REF_W, REF_L), {"beta": 0.3, "alpha": 0.4}, [0.69015168, 0.66943515, 0.6377708]),
    "wpo": ((SQ_W, SQ_L), {"beta": 0.3}, [0.56025896, 0.92089598, 0.44482245]),
}


def call(name: str, **changes: Any) -> Tensor:
    more, settings, _ = RELEASED[name]
    head = (R_W, R_L, TOKENS_W, TOKENS_L) if name == "wpo" else (TOKENS_W, TOKENS_L)
    found: Tensor = recipes.get(name)(*head, *more, **{**MASKS, **settings, **changes})
    return found


@pytest.mark.parametrize("name", RELEASED)
def test_released_values(name: str) -> None:
    """TRL 1.16.0: trl/experimental cpo, orpo (with the answers' NLL), tpo; ld_alpha and use_weighting of
    trl/trainer/dpo_trainer.py.
    """
    assert call(name).tolist() == pytest.approx(RELEASED[name][2], abs=1e-6)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in RELEASED} == {
        "cpo": {"beta": 0.1, "sft": 1.0},
        "cpo-hinge": {"beta": 0.1, "sft": 1.0},
        "cpo-ipo": {"tau": 0.1, "sft": 1.0},
        "orpo": {"beta": 0.1},
        "tpo": {"beta": 0.01, "alpha": 1.0},
        "tpo-l": {"beta": 0.01, "gamma": 0.5, "alpha": 1.0},
        "ld-dpo": {"beta": 0.1, "alpha": 0.5},
        "wpo": {"beta": 0.1},
    }


def test_tpos_other_losses_are_cpos_with_the_gold_answers_nll() -> None:
    """TRL 1.16.0 tpo_trainer.py, hinge and ipo."""
    nll = 0.7 * recipes.get("sft").reduce(recipes.get("sft")(GOLD), MASK_GOLD)  # type: ignore[misc]
    hinge = recipes.get("cpo-hinge")(TOKENS_W, TOKENS_L, **MASKS, beta=0.3, sft=0.0) + nll
    assert hinge.tolist() == pytest.approx([1.56375, 1.05375, 1.14375])
    ipo = recipes.get("cpo-ipo")(TOKENS_W, TOKENS_L, **MASKS, tau=0.3, sft=0.0) + nll
    assert ipo.tolist() == pytest.approx([2.40215278, 3.90215278, 0.34152778])


def test_without_their_terms_they_are_dpo_and_simpo() -> None:
    sums = (TOKENS_W.sum(1), TOKENS_L.sum(1))
    assert torch.allclose(call("cpo", sft=0.0, flip=0.0), recipes.get("dpo")(*sums, beta=0.3))
    assert torch.allclose(call("tpo", logp_gold=None), recipes.get("dpo")(*sums, beta=0.3))
    simpo = recipes.get("simpo")(TOKENS_W, TOKENS_L, **MASKS, beta=0.3, gamma=0.5)
    assert torch.allclose(call("tpo-l", logp_gold=None), simpo)
    ratios = ((TOKENS_W - REF_W).sum(1), (TOKENS_L - REF_L).sum(1))
    assert torch.allclose(call("ld-dpo", alpha=1.0), recipes.get("dpo")(*ratios, beta=0.3))


def test_ld_dpo_without_the_tail_sees_the_common_length_only() -> None:
    cut = torch.zeros(3, 4).bool()
    cut[0, :2] = cut[1, :2] = cut[2, :1] = True
    ratios = (((TOKENS_W - REF_W) * cut).sum(1), ((TOKENS_L - REF_L) * cut).sum(1))
    assert torch.allclose(call("ld-dpo", alpha=0.0), recipes.get("dpo")(*ratios, beta=0.3))
    with pytest.raises(ValueError, match="alpha"):
        call("ld-dpo", alpha=1.5)


def test_log_odds_are_the_logit_and_finite_at_both_ends() -> None:
    p = torch.tensor([1e-12, 0.1, 0.499, 0.501, 0.9, 0.999], dtype=F64)
    assert torch.allclose(log_odds(p.log()), p.logit(), atol=1e-9)
    ends = torch.tensor([-1e4, 0.0], requires_grad=True)
    out = log_odds(ends)
    assert out.tolist() == pytest.approx([-1e4, 13.8155], abs=1e-2)
    assert torch.autograd.grad(out.sum(), ends)[0].isfinite().all()


def test_orpo_takes_another_nll() -> None:
    own, other = call("orpo"), call("orpo", nll=torch.tensor(0.25, dtype=F64))
    nll = -(TOKENS_W * MASK_W).sum() / MASK_W.sum()
    assert torch.allclose(own - nll, other - 0.25)


def test_wpo_weights_carry_no_gradient() -> None:
    r_w, logp = R_W.clone().requires_grad_(), TOKENS_W.clone().requires_grad_()
    loss = recipes.get("wpo")(r_w, R_L, logp, TOKENS_L, SQ_W, SQ_L, **MASKS)
    grads = torch.autograd.grad(loss.sum(), [r_w, logp], allow_unused=True)
    assert (grads[0] < 0).all() and grads[1] is None


@pytest.mark.parametrize("name", [*RELEASED])
def test_padding_does_not_count(name: str) -> None:
    more, settings, _ = RELEASED[name]
    poisoned = [torch.where(m.bool(), x, torch.nan) for x, m in ((TOKENS_W, MASK_W), (TOKENS_L, MASK_L))]
    head = (R_W, R_L, *poisoned) if name == "wpo" else tuple(poisoned)
    assert torch.allclose(recipes.get(name)(*head, *more, **MASKS, **settings), call(name))
