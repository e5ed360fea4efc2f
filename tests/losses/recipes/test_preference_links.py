"""Pair losses of TRL's DPO trainer: its numbers, and what each is for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from diffalign.losses import recipes
from tests.losses.released import F64, MASK_L, MASK_W, R_L, R_W, f64

REF_W, REF_L = f64(-3.0, -5.5, -2.2) - R_W, f64(-4.0, -4.8, -6.0) - R_L
COUNT_W, COUNT_L = MASK_W.sum(1), MASK_L.sum(1)
# name: settings, losses, gradient with respect to the chosen and the rejected side; beta .3
RELEASED: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    "hinge": ({}, [0.49, 1.3, 0.94], [-0.3] * 3 + [0.3] * 3),
    "exo-pair": (
        {"eps": 0.1},
        [0.26808295, 0.68551726, 0.47832695],
        [-0.11865745, -0.18314019, -0.16014767, 0.11865745, 0.18314019, 0.16014767],
    ),
    "nca-pair": (
        {},
        [1.2843692, 1.46601501, 1.37286885],
        [-0.0349318, -0.08848382, -0.06488183, 0.06938552, 0.08173183, 0.07612492],
    ),
    "bco-pair": (
        {},
        [1.1502175, 1.54213783, 1.35741902],
        [-0.12328787, -0.15898922, -0.14325455, 0.13877105, 0.16346367, 0.15224983],
    ),
    "apo-zero": (
        {},
        [0.87352972, 1.07484294, 0.98501461],
        [-0.07262154, -0.07473065, -0.07484833, 0.0745797, 0.07439577, 0.07498313],
    ),
    "apo-down": (
        {},
        [0.96423396, 1.04447847, 1.00748932],
        [0.00229454, 0.00139315, -8.421e-05, 0.070327, 0.07333749, 0.07493254],
    ),
    "sppo-hard": (
        {},
        [1.57888889, 9.40888889, 4.98888889],
        [-0.93333333, -4.13333333, -2.73333333, 2.33333333, 4.53333333, 3.53333333],
    ),
    "aot": (
        {},
        [0.69314718, 0.59364958, 0.66359711],
        [-0.13430763, -0.15, -0.14550135, 0.13430763, 0.15, 0.14550135],
    ),
    "aot-unpaired": (
        {},
        [0.67825968, 0.66359711, 0.60719172],
        [-0.13653633, -0.14775017, -0.14550135, 0.14775017, 0.13653633, 0.14550135],
    ),
    "discopop": (
        {},
        [0.60049074, 0.85558044, 0.87737567],
        [-0.18011713, -0.16557496, 0.04609585, 0.18011713, 0.16557496, -0.04609585],
    ),
    "sigmoid-norm": (
        {},
        [0.61404645, 0.74702467, 0.69314718],
        [-0.03441325, -0.07893389, -0.05, 0.0688265, 0.03946694, 0.15],
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_values(name: str) -> None:
    """TRL 1.16.0 trl/trainer/dpo_trainer.py, beta .3; sigmoid_norm there divides sums by the answers' lengths."""
    settings, losses, gradient = RELEASED[name]
    w, l = R_W.clone().requires_grad_(), R_L.clone().requires_grad_()  # noqa: E741
    args = {"aot": (w + REF_W, l + REF_L, REF_W, REF_L), "sigmoid-norm": (w / COUNT_W, l / COUNT_L)}.get(name, (w, l))
    out = recipes.get(name)(*args, beta=0.3, **settings)
    assert out.tolist() == pytest.approx(losses, abs=1e-7)
    assert torch.cat(torch.autograd.grad(out.sum(), [w, l])).tolist() == pytest.approx(gradient, abs=1e-8)


def test_discopop_at_another_temperature() -> None:
    losses = recipes.get("discopop")(R_W, R_L, beta=0.3, tau=0.5)
    assert losses.tolist() == pytest.approx([0.56599371, 1.02993381, 0.81101585], abs=1e-8)


def test_discopops_exponent_is_bounded_by_80() -> None:
    z, zero = torch.tensor([-79.0, -80.5, -200.0], dtype=F64), torch.zeros(3, dtype=F64)
    losses = recipes.get("discopop")(z, zero, beta=1.0, tau=1e9)
    assert (2 * losses).log().tolist() == pytest.approx([79.0, 80.5, 80.0 + math.log(2)])


def test_published_settings() -> None:
    beta = dict.fromkeys(RELEASED, {"beta": 0.1})
    changed = {
        "exo-pair": {"beta": 0.1, "eps": 1e-3},
        "sppo-hard": {"beta": 1e-3},
        "discopop": {"beta": 0.1, "tau": 0.05},
    }
    assert {name: dict(recipes.get(name).defaults) for name in RELEASED} == beta | changed


def test_exo_is_zero_where_the_policy_holds_the_smoothed_label() -> None:
    """z = log((1 - eps) / eps) is its minimum, and the loss is bounded on both sides."""
    eps = 0.2
    z = torch.tensor([(1 - eps) / eps, 1e300, 1e-300], dtype=F64).log()
    out = recipes.get("exo-pair")(z, torch.zeros_like(z), beta=1.0, eps=eps)
    assert out.tolist() == pytest.approx(
        [0.0, -torch.tensor(0.8).log().item(), -torch.tensor(0.2).log().item()], abs=1e-6
    )
    with pytest.raises(ValueError, match="eps"):
        recipes.get("exo-pair")(z, z, eps=0.0)


def test_aot_compares_distributions_not_pairs() -> None:
    order = torch.tensor([2, 0, 1])
    aot, free = recipes.get("aot"), recipes.get("aot-unpaired")
    args = (R_W + REF_W, R_L + REF_L, REF_W, REF_L)
    assert torch.allclose(aot(*args), aot(*args[:2], REF_W[order], REF_L[order]))
    assert torch.allclose(free(R_W, R_L), free(R_W, R_L[order]))
    smooth = free(R_W, R_L, flip=0.25)
    assert torch.allclose(smooth, 0.75 * free(R_W, R_L) + 0.25 * free(-R_W, -R_L).flip(0))
    live = [x.clone().requires_grad_() for x in args]
    aot(*live, flip=0.1).sum().backward()
    assert live[0].grad is not None and live[2].grad is None and live[3].grad is None


def test_length_normalised_dpo_takes_token_log_ratios() -> None:
    tokens_w = f64([0.4, 0.8, 9.0], [0.2, 9.0, 9.0])
    tokens_l = f64([0.1, 9.0, 9.0], [0.3, -0.1, 0.1])
    mask_w, mask_l = torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.tensor([[1, 0, 0], [1, 1, 1]])
    found = recipes.get("sigmoid-norm")(tokens_w, tokens_l, mask_w=mask_w, mask_l=mask_l)
    assert torch.allclose(found, recipes.get("dpo")(f64(0.6, 0.2), f64(0.1, 0.1)))


@pytest.mark.parametrize("name", [name for name in RELEASED if name != "sppo-hard"])
@pytest.mark.parametrize("far", [1e4, -1e4])
def test_far_out_the_loss_and_its_gradient_are_finite(name: str, far: float) -> None:
    w = torch.full((2,), far, requires_grad=True)
    l = torch.zeros(2, requires_grad=True)  # noqa: E741
    args = (w, l, torch.zeros(2), torch.zeros(2)) if name == "aot" else (w, l)
    out = recipes.get(name)(*args, beta=1.0)
    assert out.shape == (2,) and out.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), [w, l]))


@pytest.mark.parametrize("name", ["bco-pair", "apo-zero", "sppo-hard"])
def test_beta_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match="beta"):
        recipes.get(name)(R_W, R_L, beta=0.0)
