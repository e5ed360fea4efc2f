"""Masks and weights for rollouts are those of TRL's and verl's code."""

from __future__ import annotations

import pytest

from diffalign.losses import masked_seq_mean, policy, recipes, rollout_correction
from tests.losses.released import ADV, MASK, X, f64, policy_gradient

ENTROPY = f64([0.5, 1.5, 0.2, 0.9], [1.1, 0.3, 0.8, 9.0], [0.6, 1.2, 9.0, 9.0])
TIS = [1.28402542, 0.70468809, 1.0512711, 1.3, 0.86070798, 1.3, 0.63762815, 0, 1.3, 0.90483742, 0, 0]
RELEASED = {
    # the clipped loss of GRPO under the mask, epsilon .2 and .28: value and gradient of TRL 1.16.0 grpo_trainer.py
    "off-policy-sequence-mask": (
        -0.57725175, [0, -0.07046881, -0.10512711, 0, 0, 0, 0, 0, 0, -0.06032249, 0, 0],
    ),
    "top-entropy-mask": (
        -0.19184735, [0, -0.07046881, 0, 0, 0.06694395, 0, 0, 0, 0, -0.06032249, 0, 0],
    ),
    # verl 0.9.1 rollout_corr_helper.py compute_rollout_correction_weights, threshold 1.3, and core_algos.py
    "truncated-importance-sampling": (None, TIS),
    "rollout-correction": (
        None,
        [-0.17120339, -0.09395841, -0.14016948, -2.6 / 15, 0.06694395, 0.10111111, 0.0495933, 0, -0.05777778,
         -0.040215, 0, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_values(name: str) -> None:
    value, expected = RELEASED[name]
    method = recipes.get(name)
    if name == "truncated-importance-sampling":
        assert method(X, upper=1.3, mask=MASK).flatten().tolist() == pytest.approx(expected, abs=1e-8)
        return
    if name == "rollout-correction":
        assert method.reduce is not None
        found = policy_gradient(lambda x: method.reduce(method(x, ADV, upper=1.3, mask=MASK), MASK))
        assert found[1] == pytest.approx(expected, abs=1e-8)
        return
    kept = (
        method(X, ADV, threshold=0.01, mask=MASK)
        if name == "off-policy-sequence-mask"
        else method(ENTROPY, share=0.4, mask=MASK)
    )
    loss = lambda x: policy.clip(x, ADV, eps_low=0.2, eps_high=0.28, mask=MASK) * kept  # noqa: E731
    found = policy_gradient(lambda x: masked_seq_mean(loss(x), MASK))
    assert found[0] == pytest.approx(value, abs=1e-8) and found[1] == pytest.approx(expected, abs=1e-8)


def test_published_settings() -> None:
    assert {name: dict(recipes.get(name).defaults) for name in RELEASED} == {
        "off-policy-sequence-mask": {"threshold": 0.5},
        "top-entropy-mask": {"share": 0.2},
        "truncated-importance-sampling": {"upper": 2.0},
        "rollout-correction": {"upper": 2.0},
    }


def test_a_lower_bound_drops_what_is_below_it() -> None:
    method = recipes.get("rollout-correction")
    wide, banded = method(X, ADV, mask=MASK, upper=1.3), method(X, ADV, mask=MASK, upper=1.3, lower=0.8)
    inside = rollout_correction.token_weights(X, upper=1.3, lower=0.8, mask=MASK) > 0
    assert inside.sum() == 4 and (banded[~inside] == 0).all() and (banded[inside] == wide[inside]).all()
