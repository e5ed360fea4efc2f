"""Log-ratios as token weights and as rewards."""

from __future__ import annotations

import pytest
import torch

from diffalign.losses import recipes

F64 = torch.float64


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=F64)


W, K = row(1.0, -0.5), row(0.3, -0.2)
MASK = torch.tensor([[1, 0]])
BY_HAND = {
    "tgdpo": ([W, K, row(2, -4), row(1, -6)], {}, 0.6599666),  # sp(-.1 (1.1 - .4 - .285 + .26))
    "t-reg": ([W, K, row(0.8, -0.6), row(0.2, 1.5)], {}, 0.6707227),
    "cdr": ([row(-1, -2.5), row(-3, -0.25)], {"mask": MASK}, 2.0),
    "sr-ppo": ([row(-1, -2.5), row(-3, -0.25)], {}, -0.25),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    args, settings, expected = BY_HAND[name]
    assert recipes.get(name)(*args, **settings).tolist() == pytest.approx([expected], abs=1e-7)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in BY_HAND} == {
        "tgdpo": {"beta": 0.1, "alpha": 0.5},
        "t-reg": {"beta": 0.1, "alpha": 0.25},
        "cdr": {},
        "sr-ppo": {},
    }


@pytest.mark.parametrize(
    ("name", "args", "off"),
    [
        ("tgdpo", [row(2, -4), row(1, -6)], {"alpha": 0.0}),
        ("tgdpo", [row(0, 0), row(0, 0)], {}),
        ("t-reg", [row(0.8, -0.6), row(0.2, 1.5)], {"alpha": 0.0}),
        ("t-reg", [row(0, 0), row(0, 0)], {}),
    ],
)
def test_without_guidance_it_is_dpo(name: str, args: list, off: dict) -> None:
    base = recipes.get("dpo")(W.sum(1), K.sum(1))
    assert torch.allclose(recipes.get(name)(W, K, *args, **off), base)


def test_a_flat_guide_is_dpo_with_a_beta_of_its_own_for_each_side() -> None:
    flat = recipes.get("tgdpo")(W, K, row(4, 4), row(4, 4))  # g = .4: 1.2 on the winner, .8 on the loser
    assert torch.allclose(flat, recipes.get("dpo")(1.2 * W.sum(1), 0.8 * K.sum(1)))


def test_weights_never_turn_negative() -> None:
    w, k = W.clone().requires_grad_(), K.clone().requires_grad_()
    loss = recipes.get("tgdpo")(w, k, row(-100, 0), row(100, 0))
    grads = torch.autograd.grad(loss.sum(), (w, k))
    assert grads[0][0, 0] == 0 and grads[1][0, 0] == 0 and grads[0][0, 1] < 0 < grads[1][0, 1]


def test_guides_do_not_learn() -> None:
    for name in ("tgdpo", "t-reg"):
        inputs = [x.clone().requires_grad_() for x in BY_HAND[name][0]]
        grads = torch.autograd.grad(recipes.get(name)(*inputs).sum(), inputs, allow_unused=True)
        assert [g is None for g in grads] == [False, False, True, True]


def test_t_reg_follows_the_token_rewards_and_its_scale_does_not_learn() -> None:
    w = row(0.0, 0.0).requires_grad_()
    loss = recipes.get("t-reg")(w, K * 0, row(1e9, -1e9), row(0, 0), alpha=0.5)
    (grad,) = torch.autograd.grad(loss.sum(), w)
    # DPO's -beta / 2 on both; the term's alpha beta / 2 * (+-1/2)
    assert grad[0].tolist() == pytest.approx([-0.05 - 0.0125, -0.05 + 0.0125])
    far = row(3.0, 1.0).requires_grad_()
    only = recipes.get("t-reg")(far, K, row(1.0, 1.0), row(0, 0)) - recipes.get("dpo")(far.sum(1), K.sum(1))
    (grad,) = torch.autograd.grad(only.sum(), far)
    assert grad[0].tolist() == pytest.approx([-0.25 * 0.1 * 0.4037 * 0.2310586] * 2, abs=1e-6)


def test_rewards_of_equal_models_are_zero_add_up_and_do_not_learn() -> None:
    for name in ("cdr", "sr-ppo"):
        reward = recipes.get(name)
        strong, weak = row(-1, -2.5).requires_grad_(), row(-3, -0.25).requires_grad_()
        assert reward(strong, strong).item() == 0
        assert (reward(strong, weak) + reward(weak, strong)).item() == 0
        assert not reward(strong, weak).requires_grad
        assert reward(strong, weak, mask=MASK).item() == 2.0
        assert reward(strong[:, 0], weak[:, 0]).tolist() == [2.0]


@pytest.mark.parametrize("name", BY_HAND)
def test_finite_far_out(name: str) -> None:
    args, settings, _ = BY_HAND[name]
    far = torch.tensor([[-1e4, 50.0], [1e4, -50.0]]).requires_grad_()
    out = recipes.get(name)(far, *(x.float().repeat(2, 1) for x in args[1:]))
    assert out.shape == (2,) and torch.isfinite(out).all()
    if out.requires_grad:
        assert torch.isfinite(torch.autograd.grad(out.sum(), far)[0]).all()
