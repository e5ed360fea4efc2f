"""Online diffusion methods by name are what their trainers compute."""

from __future__ import annotations

import pytest
import torch

from diffalign.losses import forward_process, policy, recipes
from diffalign.losses.diffusion import latent_mean

F64 = torch.float64


def velocities() -> dict[str, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    value, value_old, x0, noise = torch.randn(4, 3, 2, 4, dtype=F64, generator=gen)
    return {
        "value": value, "value_old": value_old, "x0": x0, "noise": noise,
        "t": torch.tensor([0.2, 0.5, 0.9], dtype=F64), "adv": torch.tensor([1.5, -9.0, 0.0], dtype=F64),
    }  # fmt: skip


def test_published_settings() -> None:
    names = ("ddpo", "flow-grpo", "dancegrpo", "mixgrpo", "flow-cps", "grpo-guard", "diffusion-nft", "awm")
    found = {name: dict(recipes.get(name).defaults) for name in names}
    assert [found[name] for name in names[:5]] == [{"eps": 1e-4, "adv_clip": 5.0}] * 5
    assert found["grpo-guard"] == {"eps": 2e-6, "adv_clip": 5.0}
    assert found["diffusion-nft"] == {"beta": 1.0, "adv_clip": 5.0}
    assert found["awm"] == {
        "eps": 1.0, "adv_clip": 5.0, "matching": forward_process.generalised_huber_matching,
    }  # fmt: skip


def test_steps_are_clipped_at_one_in_ten_thousand_and_advantages_at_five() -> None:
    x = torch.tensor([[2e-4, 0.5e-4], [-2e-4, 0.0]], dtype=F64, requires_grad=True)
    loss = recipes.get("flow-grpo")(x, torch.tensor([50.0, 1.0], dtype=F64))
    (grad,) = torch.autograd.grad(loss.sum(), x)
    assert grad.flatten().tolist() == pytest.approx([0.0, -5.0, -1.0, -1.0], rel=1e-3)
    low = recipes.get("ddpo")(torch.zeros(1), torch.tensor([-50.0]))
    assert low.item() == 5.0
    masked = recipes.get("ddpo")(x, torch.ones(2, dtype=F64), mask=torch.tensor([[0, 1], [0, 1]]))
    assert (masked[:, 0] == 0).all() and (masked[:, 1] != 0).all()


def test_nft_is_its_loss_under_the_label_of_the_advantage() -> None:
    v = velocities()
    found = recipes.get("diffusion-nft").apply(v, beta=0.5)
    label = torch.tensor([0.5 + 0.15, 0.0, 0.5], dtype=F64)  # A / 5, clipped to +-1, halved, plus 1/2
    args = [v[name] for name in ("value", "value_old", "x0", "noise", "t")]
    assert torch.allclose(found, 5 * forward_process.nft(*args, label, beta=0.5))


def test_awm_by_hand() -> None:
    v = velocities()
    found = recipes.get("awm").apply(v, matching=forward_process.linear_matching)
    errors = [latent_mean((v[name] - (v["noise"] - v["x0"])) ** 2) for name in ("value", "value_old")]
    x = v["t"] * (errors[1] - errors[0])
    assert torch.allclose(found, policy.clip(x, torch.tensor([0.3, -1.0, 0.0], dtype=F64), eps_low=1.0))


@pytest.mark.parametrize("name", ["awm", "diffusion-nft"])
def test_only_the_policys_velocity_learns(name: str) -> None:
    v = {key: x.requires_grad_() for key, x in velocities().items()}
    grads = torch.autograd.grad(recipes.get(name).apply(v).sum(), list(v.values()), allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1:] == (None,) * 5
