"""Square losses: numbers by hand, fixed points, and the mixtures of references."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

F64 = torch.float64


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


W, K = t(1.2), t(-3.4)
LW, LK, REFS_W, REFS_K = t(-3.0), t(-4.0), (t(-2.0), t(-2.5)), (t(-3.5), t(-1.0))
BY_HAND = {
    "ipo": ([W, K], 0.16),  # (4.6 - 5)**2
    "inpo": ([LW, LK, REFS_W, REFS_K], 4246.6944444),  # h = 1.5 against a third and two thirds; (1.5 - 66.667)**2
    "mnpo": ([LW, LK, (*REFS_W, t(8.0)), (*REFS_K, t(1.0))], 4246.6944444),  # the second past policy weighs 0
    "irepo": ([W, K, t(0.8)], 0.8580212),  # (.46 - log 4)**2
    "refuel": ([W, K, t(2.5), t(0.75)], 8.1225),  # (4.6 - 1.75)**2
    "srpo-self-improving": ([W, K, t(0.5), t(-0.25)], 0.216225),  # (.1 * 5.35 - 1)**2
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    args, expected = BY_HAND[name]
    assert recipes.get(name)(*args).tolist() == pytest.approx([expected], abs=1e-7)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in BY_HAND} == {
        "ipo": {"tau": 0.1},
        "inpo": {"ratio": 1 / 3, "eta": 0.0075},
        "mnpo": {"ratio": 1 / 3, "eta": 0.0075, "weights": (1.0, 0.0)},
        "irepo": {"beta": 0.1},
        "refuel": {"eta": 1.0},
        "srpo-self-improving": {"beta": 0.1},
    }


@pytest.mark.parametrize("p", [0.2, 0.9, 1.0])
def test_ipo_of_a_soft_label_is_least_at_a_finite_margin(p: float) -> None:
    r = t((2 * p - 1) / 0.2).requires_grad_()
    (grad,) = torch.autograd.grad(recipes.get("ipo")(r, t(0.0), label=p).sum(), r)
    assert grad.item() == pytest.approx(0, abs=1e-12)


def test_inpo_is_ipo_against_the_reference_or_the_previous_policy() -> None:
    ipo, inpo = recipes.get("ipo"), recipes.get("inpo")
    for ratio, j in ((1.0, 0), (0.0, 1)):
        ours = inpo(LW, LK, REFS_W, REFS_K, ratio=ratio, eta=0.3)
        assert torch.allclose(ours, ipo(LW - REFS_W[j], LK - REFS_K[j], tau=0.3))


def test_mnpo_renormalises_and_starts_without_a_history() -> None:
    mnpo = recipes.get("mnpo")
    alone = mnpo(LW, LK, REFS_W[:1], REFS_K[:1])
    assert torch.allclose(alone, recipes.get("ipo")(LW - REFS_W[0], LK - REFS_K[0], tau=0.0075))
    assert torch.allclose(mnpo(LW, LK, REFS_W, REFS_K, ratio=1.0), alone)
    assert torch.allclose(mnpo(LW, LK, REFS_W, REFS_K), recipes.get("inpo")(LW, LK, REFS_W, REFS_K))
    past_w, past_k = (*REFS_W, t(8.0)), (*REFS_K, t(1.0))
    assert torch.allclose(mnpo(LW, LK, past_w, past_k, weights=(2, 6)), mnpo(LW, LK, past_w, past_k, weights=(1, 3)))
    # shares 1/3, 1/6, 1/2: h = (-3 + 2/3 + 2.5/6 - 4) - (-4 + 3.5/3 + 1/6 - .5)
    spread = mnpo(LW, LK, past_w, past_k, weights=(1, 3), eta=0.5)
    assert spread.item() == pytest.approx((-5.9166667 + 3.1666667 - 1) ** 2, abs=1e-5)
    assert torch.allclose(mnpo(LW, LK, REFS_W, REFS_K, weights=(0.0,)), alone)
    assert torch.allclose(mnpo(LW, LK, REFS_W, REFS_K, weights=(0.0,), ratio=0.0), alone)


def test_mnpo_sums_over_tokens() -> None:
    tokens = torch.tensor([[-1.0, -2.0]], dtype=F64)
    assert torch.allclose(
        recipes.get("mnpo")(tokens, LK[:, None], (tokens * 0 - 1, tokens * 0 - 1.25), [r[:, None] for r in REFS_K]),
        recipes.get("mnpo")(LW, LK, REFS_W, REFS_K),
    )


def test_irepo_and_soft_dpo_share_their_stationary_point() -> None:
    p = 0.8
    r = t(math.log(p / (1 - p)) / 0.1).requires_grad_()
    for loss in (recipes.get("irepo")(r, t(0.0), t(p)), recipes.get("dpo")(r, t(0.0), label=t(p))):
        assert torch.autograd.grad(loss.sum(), r)[0].item() == pytest.approx(0, abs=1e-12)


def test_irepo_holds_certain_labels() -> None:
    certain = recipes.get("irepo")(t(0.0, 0.0, 0.0), t(0.0, 0.0, 0.0), t(0.0, 0.5, 1.0))
    assert certain.tolist() == pytest.approx([math.log(1e6 - 1) ** 2, 0.0, math.log(1e6 - 1) ** 2])


def test_refuel_is_zero_at_the_reward_difference_and_ipo_at_a_constant_one() -> None:
    refuel = recipes.get("refuel")
    assert refuel(t(3.5), t(1.5), t(2.0), t(1.0), eta=2.0).item() == 0
    assert torch.allclose(refuel(W, K, t(6.0), t(1.0)), recipes.get("ipo")(W, K))


def test_srpo_without_revision_is_ipo_times_beta_squared() -> None:
    ours = recipes.get("srpo-self-improving")(W, K, t(0.0), t(0.0), beta=0.4)
    assert torch.allclose(ours, 0.16 * recipes.get("ipo")(W, K, tau=0.2))


def test_only_log_ratios_learn() -> None:
    for name, n in (("irepo", 1), ("refuel", 2), ("srpo-self-improving", 0)):
        args = [x.clone().requires_grad_() for x in BY_HAND[name][0]]
        grads = torch.autograd.grad(recipes.get(name)(*args).sum(), args, allow_unused=True)
        assert [g is None for g in grads] == [False] * (len(args) - n) + [True] * n
    leaf = LW.clone().requires_grad_()
    ref = REFS_W[0].clone().requires_grad_()
    grads = torch.autograd.grad(
        recipes.get("inpo")(leaf, LK, (ref, REFS_W[1]), REFS_K).sum(), (leaf, ref), allow_unused=True
    )
    assert grads[0] is not None and grads[1] is None


@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("tau", lambda: recipes.get("ipo")(W, K, tau=0.0)),
        ("eta", lambda: recipes.get("inpo")(LW, LK, REFS_W, REFS_K, eta=0.0)),
        ("ratio", lambda: recipes.get("mnpo")(LW, LK, REFS_W, REFS_K, ratio=1.5)),
        ("2 past policies need a weight each", lambda: recipes.get("inpo")(LW, LK, (*REFS_W, W), (*REFS_K, W))),
        ("label", lambda: recipes.get("irepo")(W, K, t(1.5))),
        ("beta", lambda: recipes.get("srpo-self-improving")(W, K, W, K, beta=0.0)),
    ],
)
def test_bad_input_is_refused(said: str, call) -> None:
    with pytest.raises(ValueError, match=said):
        call()
