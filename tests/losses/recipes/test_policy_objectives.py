"""Objectives that are a method by themselves give the loss and the gradient of TRL's and verl's code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffalign.losses import recipes
from tests.losses.released import ADV, F64, MASK, OLD, X, policy_gradient

LOGP = OLD + X
SEQUENCE = [0, 0, 0, 0, 0.07037624, 0.07037624, 0.07037624, 0, 0, 0, 0, 0]
CISPO = [-0.17120339, -0.09395841, -0.14016948, -2.6 / 15, 0.06694395, 0.10111111, 0.0495933, 0, -0.05777778, -0.040215]
SAPO = [-0.12584739, -0.06895449, -0.10505805, -0.15458666, 0.06658723, 0.10152519, 0.0478408, 0, -0.09367506]
GMPO = [0, -0.10253151, -0.10253151, 0, 0.07398451, 0.07398451, 0, 0, 0, -0.07008474, 0, 0]
DRO = [-0.13055556, -0.13722222, -0.13277778, -0.12666667, 0.07611111, 0.08111111, 0.07277778, 0, -0.04, -0.04555556]
# name: settings, value (None: the log-ratio stands where the code has the log-prob), gradient
RELEASED: dict[str, tuple[dict[str, Any], float | None, list[float]]] = {
    "rloo": ({"eps_low": 0.6}, -0.64712359, [0, 0, 0, 0, *[0.17285758] * 3, 0, *[-0.17998117] * 2, 0, 0]),
    "gspo": ({"eps_low": 0.1, "eps_high": 0.1}, -0.37553794, SEQUENCE),
    "gspo-token": ({"eps_low": 0.1, "eps_high": 0.1}, -0.37553794, SEQUENCE),
    "luspo": ({"eps_low": 0.1, "eps_high": 0.1}, -1.41994714, [0, 0, 0, 0, *[0.21112873] * 3, 0, 0, 0, 0, 0]),
    "gmpo": ({"eps_low": 0.3, "eps_high": 0.2}, -0.32834200, GMPO),
    "cispo": ({"eps_high": 0.3}, None, [*CISPO, 0, 0]),
    "sapo": ({}, -0.74167540, [*SAPO, -0.06018613, 0, 0]),
    "vespo": ({}, None, [-0.04439351] * 4 + [0.05310225] * 3 + [0, -0.02835104, -0.02835104, 0, 0]),
    "dro": ({"beta": 0.1}, None, [*DRO, 0, 0]),
    "dppo-tv": (
        {"eps_low": 0.05, "eps_high": 0.1, "logp": LOGP},
        None,
        [0, -0.09395841, -0.14016948, 0, 0, 0.10498902, 0, 0, -0.06630332, -0.040215, 0, 0],
    ),
    "dppo-kl": (
        {"eps_low": 0.005, "eps_high": 0.01, "logp": LOGP},
        None,
        [0, -0.09395841, -0.14016948, 0, 0, 0.10498902, 0, 0, 0, -0.040215, 0, 0],
    ),
    "clip-cov": (
        {"logp": LOGP, "generator": torch.Generator(), "share": 1.0, "low": 0.1},
        -0.27335155,
        [0, -0.09395841, 0, 0, 0.06694395, 0.10498902, 0, 0, 0, -0.040215, 0, 0],
    ),
    "kl-cov": (
        {"logp": LOGP, "share": 0.3},
        -0.49993916,
        [-0.06009228, -0.09395841, -0.02905837, -0.24294917, 0.06694395, 0.10498902, 0.0495933, 0, -0.06630332,
         -0.040215, 0, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_values(name: str) -> None:
    """TRL 1.16.0 grpo_trainer.py (gspo, luspo, cispo, sapo, vespo), rloo_trainer.py, gmpo_trainer.py; the others verl
    0.9.1 core_algos.py.
    """
    settings, value, gradient = RELEASED[name]
    method = recipes.get(name)
    assert method.reduce is not None
    found = policy_gradient(lambda x: method.reduce(method(x, ADV, mask=MASK, **settings), MASK))
    assert value is None or found[0] == pytest.approx(value, abs=1e-7)
    assert found[1] == pytest.approx(gradient, abs=1e-8)


def test_published_settings() -> None:
    changed = {"rloo": {"eps_low": 0.2}}
    assert {name: dict(recipes.get(name).defaults) for name in RELEASED} == {name: {} for name in RELEASED} | changed


@pytest.mark.parametrize("name", [name for name in RELEASED if name != "clip-cov"])
def test_on_policy_gradient_is_minus_the_advantage_and_padding_has_none(name: str) -> None:
    x = torch.zeros(3, 4, dtype=F64, requires_grad=True)
    padded = torch.where(MASK.bool(), x, torch.nan)
    settings = {"logp": OLD} if "logp" in RELEASED[name][0] else {}
    loss = recipes.get(name)(padded, ADV, mask=MASK, **settings)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    rows = MASK.sum(1, keepdim=True) if name == "rloo" else 1
    assert torch.allclose(grad, -ADV[:, None] * MASK * rows, atol=1e-12)
