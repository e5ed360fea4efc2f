"""Advantage estimators per token are those of verl; DDPO's is that of its code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffalign.losses import recipes
from tests.losses.released import F64, REWARDS, f64

LENGTHS = torch.tensor([4, 2, 3, 1, 4, 2])
MASK = torch.arange(4)[None] < LENGTHS[:, None]
TERMINAL = torch.zeros(6, 4, dtype=F64).scatter(1, LENGTHS[:, None] - 1, REWARDS.reshape(-1, 1))
STEPS = f64([1, -1, 2, 0], [0, 1, 0, 0], [1, 1, -1, 0], [2, 0, 0, 0], [-1, 0, 1, 1], [0, 2, 0, 0])
TOKENS = TERMINAL + 0.1 * STEPS * MASK
VALUES = f64([0.5, 0.2, 0.1, 0.3], [0.4, 0.6, 0, 0], [0.1, 0.9, 0.5, 0], [0.7, 0, 0, 0], [0.2, 0.4, 0.3, 0.1],
             [0.3, 0.3, 0, 0])  # fmt: skip
LOGP = -f64([0.5, 1.2, 0.3, 0.9], [0.4, 0.8, 0, 0], [1.1, 0.2, 0.6, 0], [0.7, 0, 0, 0], [0.2, 1.4, 0.3, 0.5],
            [0.6, 0.9, 0, 0])  # fmt: skip
SUM_SQ = f64([0.5, 0.3, 0.6, 0.4], [0.55, 0.35, 0, 0], [0.3, 0.7, 0.45, 0], [0.4, 0, 0, 0], [0.7, 0.25, 0.6, 0.5],
             [0.4, 0.3, 0, 0])  # fmt: skip
HOLES = MASK.clone()
HOLES[0, 1] = HOLES[4, 0] = False


def groups(x: torch.Tensor) -> torch.Tensor:
    return x.view(2, 3, 4)


# name: arguments, settings, advantages of the valid tokens; verl 0.9.1 core_algos.py
RELEASED: dict[str, tuple[tuple[Any, ...], dict[str, Any], list[float]]] = {
    "gae": (
        (TOKENS, VALUES), {"gamma": 0.9, "lam": 0.8, "mask": MASK},
        [-0.94491938, -0.59369208, -0.12033454, -0.30146625, 0.23984691, 0.53132323, 1.38551541, 1.15383337,
         2.50919826, -1.55065048, -0.73594918, -0.70828392, -0.39515507, 0.0108298, -0.38682718, -0.09326888],
    ),
    "reinforce-plus-plus": (
        (TOKENS,), {"gamma": 0.9, "mask": MASK},
        [-0.60930254, -0.61927078, -0.42896816, -0.51958845, 0.28693217, 0.47723479, 1.60908228, 1.84560125,
         2.10840011, -1.24455081, -0.71632511, -0.53680631, -0.43803019, -0.42896816, -0.44709222, -0.33834786],
    ),
    "reinforce-plus-plus-baseline": (
        (REWARDS, MASK), {}, [-1.2806794] * 4 + [-0.33494692] * 2 + [1.55651805] * 3 + [-0.65019108] + [0.2955414] * 6,
    ),
    "optimal-token-baseline": (
        tuple(groups(x) for x in (TOKENS, LOGP, SUM_SQ, MASK)), {},
        [-1.79360496, -1.14489996, -1.31628851, 1.0, -0.89360496, -0.14489996, 1.10639504, 1.75510004, 1.38371149,
         -0.464741, 0.435259, 1e-8, 1.2, 1.1, 0.535259, 1e-8],
    ),
    "tir-optimal-token-baseline": (
        tuple(groups(x) for x in (TOKENS, LOGP, SUM_SQ, HOLES)), {},
        [-1.71898526, -1.44410068, -1.49049538, -0.91898526, -0.54410068, 1.08101474, 1.35589932, 1.40950462,
         -0.72249248, 0.27750752, 1e-8, 1.1, 0.27750752, 1e-8],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*RELEASED, "ddpo-advantage"])
def test_released_values(name: str) -> None:
    """DDPO: kvablack/ddpo-pytorch stat_tracking.py, by hand: two prompts, one of them below its minimum count."""
    if name == "ddpo-advantage":
        history, adv = recipes.get(name)(f64(1.0, 3.0, 8.0), ["a", "a", "b"], {}, min_count=2, eps=0.0)
        std = f64(1.0, 3.0, 8.0).std(correction=0).item()
        assert adv.tolist() == pytest.approx([-1.0, 1.0, 4 / std]) and history == {"a": [1.0, 3.0], "b": [8.0]}
        return
    args, settings, expected = RELEASED[name]
    out = recipes.get(name)(*args, **settings)
    mask = HOLES if name.startswith("tir") else MASK
    assert out.reshape(6, 4)[mask].tolist() == pytest.approx(expected, abs=2e-6)
    assert (out.reshape(6, 4)[~mask] == 0).all()


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in (*RELEASED, "ddpo-advantage")} == {
        "gae": {"gamma": 1.0, "lam": 0.95},
        "reinforce-plus-plus": {"gamma": 1.0},
        "reinforce-plus-plus-baseline": {},
        "optimal-token-baseline": {},
        "tir-optimal-token-baseline": {},
        "ddpo-advantage": {"buffer_size": 32, "min_count": 16, "eps": 1e-6},
    }


def test_without_holes_both_token_baselines_agree() -> None:
    args = RELEASED["optimal-token-baseline"][0]
    found = [recipes.get(name)(*args) for name in ("otb", "tir-otb")]
    assert torch.allclose(*found, atol=1e-12)
    with pytest.raises(ValueError, match="sum_sq"):
        recipes.get("tir-otb")(args[0], args[1], args[2][:1], args[3])


def test_the_group_baseline_needs_a_mask_row_per_sample() -> None:
    with pytest.raises(ValueError, match="mask"):
        recipes.get("reinforce-plus-plus-baseline")(REWARDS, MASK[:5])
