"""Rules, routes and multipliers: closed forms, who counts where, and state that goes through JSON unharmed."""

from __future__ import annotations

import json
import math

import pytest
import torch

from diffalign.losses import group_advantage
from diffalign.rewards.combination import Combination
from diffalign.rewards.rules import ENSEMBLES, RULES

NAN = math.nan
RECORDS = [
    {"prompt": "a red cat", "metadata": {"tag": "colors"}},
    {"prompt": "two dogs", "metadata": {"tag": "counting"}},
]
A, B = [[0.1, 0.2, 0.9], [0.4, NAN, 0.8]], [[0.5, 0.1, 0.3], [0.3, 0.3, 0.9]]


def rewards(a=A, b=B):
    return {"a": torch.tensor(a), "b": torch.tensor(b)}


def one(rule, weights=None, given=None, **options):
    combined, _ = Combination(["a", "b"], weights, rule={"rule": rule, **options})(given or rewards(), RECORDS)
    assert combined.weights == [1.0] and combined.names == ["combined"]
    return combined.rewards[0]


@pytest.mark.parametrize(
    ("rule", "weights", "options", "expected"),
    [
        ("product", None, {}, [[0.05, 0.02, 0.27], [0.12, NAN, 0.72]]),
        ("harmonic", [0.3, 0.7], {}, [[0.227273, 0.117647, 0.375], [0.324324, NAN, 0.867470]]),
        ("log_sum", [1, 2], {}, [[-3.688879, -6.214608, -2.513306], [-3.324236, NAN, -0.433865]]),
        ("minimum", None, {}, [[0.1, 0.1, 0.3], [0.3, NAN, 0.8]]),
        ("minimum", [1, 2], {"ideal": [1, 1]}, [[-1, -1.8, -1.4], [-1.4, NAN, -0.2]]),
        ("pareto", None, {}, [[0, -1, 0], [-1, NAN, 0]]),
        ("pareto", [1, -1], {}, [[-1, 0, 0], [0, NAN, 0]]),
        ("ensemble_mean", None, {}, [[0.3, 0.15, 0.6], [0.35, 0.3, 0.85]]),
        ("worst_case", None, {}, [[0.1, 0.1, 0.3], [0.3, 0.3, 0.8]]),
        ("mean_std", None, {"coef": 1.0}, [[0.017157, 0.079289, 0.175736], [0.279289, 0.3, 0.779289]]),
        ("mean_var", None, {"coef": 1.0}, [[0.22, 0.145, 0.42], [0.345, 0.3, 0.845]]),
        ("soft_min", None, {"temperature": 1e-3}, [[0.100693, 0.100693, 0.300693], [0.300693, 0.3, 0.800693]]),
    ],
)
def test_each_rule_has_its_closed_form_and_its_own_rule_for_failures(rule, weights, options, expected):
    found = one(rule, weights, **options)
    assert torch.allclose(found, torch.tensor(expected), atol=2e-5, equal_nan=True)


def test_every_rule_is_tried_here():
    named = {mark.args[1][i][0] for mark in test_each_rule_has_its_closed_form_and_its_own_rule_for_failures.pytestmark
             for i in range(len(mark.args[1]))}  # fmt: skip
    assert named == set(RULES) - {"weighted_sum"}


def test_a_sum_keeps_its_rewards_apart_until_advantages_are_made():
    combined, state = Combination(["a", "b"], [2.0, -1.0])(rewards(), RECORDS)
    assert combined.names == ["a", "b"] and combined.weights == [2.0, -1.0] and state == {}
    assert torch.equal(combined.rewards.nan_to_num(9), torch.tensor([A, B]).nan_to_num(9))


GROUPS = torch.tensor([[[1.0, 2, 3], [1, 2, 6]], [[100.0, 300, 200], [500, 100, 300]]])
"""Two rewards of two prompts; the scale of the second hides the first in a sum."""


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        ("sum", [[-1.0049, 0.9950, 0.0099], [0.9924, -1.0074, 0.0150]]),  # the second reward decides
        ("each", [[-2, 1, 1], [0.2441, -1.3780, 1.1339]]),  # (r - mean) / std of the group, added
        ("gdpo", [[-1.4709, 0.7355, 0.7355], [0.1795, -1.0134, 0.8339]]),  # that over its std of all six, 1.3597
    ],
)
def test_rewards_are_normalised_after_the_sum_each_or_each_and_over_the_batch(normalize, expected):
    made = Combination(["a", "b"], rule={"normalize": normalize}).normalization
    found = made.combine(GROUPS, [1.0, 1.0], advantage=group_advantage)
    assert torch.allclose(found, torch.tensor(expected), atol=2e-3)


def test_a_rule_without_options_and_a_reward_alone_need_no_mapping_and_no_list():
    combined = Combination("a", rule="weighted_sum")({"a": torch.tensor(A)}, RECORDS)[0]
    assert combined.names == ["a"] and Combination(["a", "b"], rule="product").rule == "product"


def test_a_reward_of_weight_zero_is_not_looked_at():
    found = one("product", [1, 0], given=rewards(b=[[NAN] * 3] * 2))
    assert torch.allclose(found, torch.tensor(A), equal_nan=True)
    combination = Combination(["a", "b"], [0, 1])
    assert list(combination.weights) == ["b"] and bool(combination.usable(rewards(), RECORDS).all())


ROUTES = {"a": {"tag": ["colors", "position"]}, "b": {"prompt": "dogs?$"}}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_routed_reward_counts_for_its_prompts_alone(rule):
    options = {"coef": 0.5} if rule == "mean_std" else {}
    given = rewards(b=[[NAN, 0.1, 0.3], [0.3, 0.3, 0.9]])
    combination = Combination(["a", "b"], rule={"rule": rule, **options}, routes=ROUTES)
    combination.check_prompts(RECORDS)
    found = combination(given, RECORDS)[0].rewards[0]
    expected = torch.tensor([A[0], B[1]])
    if rule == "pareto":
        expected = torch.tensor([[-2.0, -1, 0], [-1, -1, 0]])
    elif rule == "log_sum":
        expected = expected.log()
    assert torch.allclose(found, expected, atol=1e-6)
    assert bool(combination.usable(given, RECORDS).all())


@pytest.mark.parametrize("normalize", ["each", "gdpo"])
def test_normalised_each_a_routed_reward_is_nan_elsewhere(normalize):
    combination = Combination(["a", "b"], routes=ROUTES, rule={"normalize": normalize})
    given = rewards(a=[[0.1, 0.2, 0.9], [NAN] * 3], b=[[NAN] * 3, [0.3, NAN, 0.9]])
    assert combination(given, RECORDS)[0].rewards.shape == (2, 2, 3)
    assert combination.usable(given, RECORDS).tolist() == [[True] * 3, [True, False, True]]


@pytest.mark.parametrize("rule", ["weighted_sum", "worst_case"])
def test_what_can_be_learned_from_agrees_with_what_the_rule_returns(rule):
    combination = Combination(["a", "b"], rule={"rule": rule})
    found = combination(rewards(), RECORDS)[0].rewards.sum(0)
    assert torch.equal(combination.usable(rewards(), RECORDS), found.isfinite())
    assert (rule in ENSEMBLES) == bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ({"a": {"tag": "texts"}}, "no training prompt matches the route of a"),
        ({"a": {"tag": "colors"}, "b": {"tag": "colors"}}, "1 prompts have no counted reward, first 'two dogs'"),
    ],
)
def test_routes_that_lead_nowhere_are_told_before_the_run(routes, message):
    with pytest.raises(ValueError, match=message):
        Combination(["a", "b"], routes=routes).check_prompts(RECORDS)


def lagrangian(**options):
    return Combination(["a", "b"], rule={"rule": "lagrangian", "thresholds": {"b": 0.5}, "lr": 1.0, **options})


def test_a_multiplier_rises_while_its_reward_falls_short_and_rests_at_the_threshold():
    low, state = rewards(b=[[0.25] * 3, [0.25, NAN, 0.25]]), {}
    weights = []
    for _ in range(3):
        combined, state = lagrangian()(low, RECORDS, state=state)
        weights.append(combined.weights)
    assert weights[0] == [0.5, 0.5] and weights[1][1] > 0.5 and weights[2][1] > weights[1][1]
    assert math.isclose(weights[1][1], 1 / (1 + math.exp(-0.0625)), rel_tol=1e-6), "slope of the sigmoid at 0 is 1/4"
    assert all(math.isclose(sum(pair), 1) for pair in weights)
    _, same = lagrangian()(rewards(b=[[0.5] * 3] * 2), RECORDS, state=state)
    assert same == state
    _, unknown = lagrangian()(rewards(b=[[NAN] * 3] * 2), RECORDS, state=state)
    assert unknown == state


def test_a_two_sided_multiplier_turns_against_a_reward_that_is_too_high():
    state = {}
    for _ in range(2):
        combined, state = lagrangian(two_sided=True)(rewards(b=[[0.9] * 3] * 2), RECORDS, state=state)
    assert combined.weights[1] < 0


def test_state_goes_through_json_unharmed():
    combination = Combination(["a", "b"], transforms={"a": [{"affine": {"scale": 1 / 3}}, "normalize"]},
                              rule={"rule": "lagrangian", "thresholds": {"b": 0.7}})  # fmt: skip
    state = combination(rewards(), RECORDS)[1]
    back = json.loads(json.dumps(state))
    assert back == state and set(state) == {"moments", "multipliers"}
    whole, there = combination(rewards(), RECORDS, state=state), combination(rewards(), RECORDS, state=back)
    assert whole[1] == there[1] and whole[0].weights == there[0].weights
    assert torch.equal(whole[0].rewards.nan_to_num(9), there[0].rewards.nan_to_num(9))
    assert combination(rewards(), RECORDS)[1] == state, "a call changes nothing of its own"


def test_settings_may_use_the_name_in_the_configuration():
    combination = Combination(["jpeg_compressibility"], transforms={"jpeg": ["rank"]},
                              aliases={"jpeg": "jpeg_compressibility"})  # fmt: skip
    assert list(combination.transforms) == ["jpeg_compressibility"]


def test_reference_samples_are_asked_for_by_counted_rewards_alone():
    transforms = {"a": [{"sigmoid_ref": {"samples": 3}}], "b": ["center_ref"]}
    assert Combination(["a", "b"], transforms=transforms).reference_samples == {"a": 3, "b": 1}
    assert Combination(["a", "b"], [1, 0], transforms=transforms).reference_samples == {"a": 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": {"rule": "harmonc"}}, "did you mean `harmonic`"),
        ({"rule": {"rule": "soft_min", "temperatur": 1}}, "did you mean `temperature`"),
        ({"rule": {"rule": "mean_std"}}, "missing option of rule mean_std: coef"),
        ({"rule": {"rule": "soft_min", "temperature": 0}}, "temperature must be positive"),
        ({"rule": {"rule": "minimum", "ideal": [1, 2, 3]}}, "do not fit"),
        ({"rule": {"rule": "product", "normalize": "each"}}, "the rule product leaves one: set normalize: sum"),
        ({"rule": {"normalize": "gpdo"}}, "unknown normalize in reward_combination: `gpdo`; did you mean `gdpo`"),
        ({"rule": {"rule": "lagrangian"}}, "missing option of rule lagrangian: thresholds"),
        ({"rule": {"rule": "lagrangian", "thresholds": {"a": 1, "b": 1}}}, "none for at least one"),
        ({"rule": {"rule": "lagrangian", "thresholds": {"bb": 1}}}, "unknown reward in thresholds: `bb`; did you mean"),
        ({"transforms": {"c": ["rank"]}}, "unknown reward in reward_transforms"),
        ({"routes": {"a": "colors"}}, "a route is a mapping"),
        ({"routes": {"a": {"prompt": "("}}}, "no regular expression"),
    ],
)
def test_mistakes_are_told_before_the_run(given, message):
    with pytest.raises(ValueError, match=message):
        Combination(["a", "b"], **given)


@pytest.mark.parametrize("rule", ["mean_var", "product"])
def test_weights_under_a_rule_that_has_none_are_refused(rule):
    with pytest.raises(ValueError, match="leave reward_weights out"):
        Combination(["a", "b"], [1, 0.5], rule={"rule": rule})


def test_a_reward_that_the_rule_cannot_take_is_an_error():
    with pytest.raises(ValueError, match="not negative"):
        one("harmonic", given=rewards(b=[[-0.5] * 3] * 2))
