"""Transforms named in YAML: closed forms, NaN, running moments, references, and errors that name the way out."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.rewards.transforms import TRANSFORMS, read_steps, transformed

NAN = math.nan


def apply(steps, values, **given):
    return transformed(torch.tensor(values), read_steps("r", steps), **given)[0]


def close(found, expected):
    return torch.allclose(found, torch.tensor(expected), atol=1e-5, equal_nan=True)


def test_steps_run_in_the_order_given():
    values = [[1.0, 4.0, NAN]]
    assert close(
        apply([{"affine": {"scale": 2, "shift": -1}}, {"clamp": {"low": 0, "high": 5}}], values), [[1, 5, NAN]]
    )
    assert close(
        apply([{"clamp": {"low": 0, "high": 2}}, {"affine": {"scale": 2, "shift": -1}}], values), [[1, 3, NAN]]
    )


def test_rank_is_a_place_within_the_group():
    found = apply("rank", [[0.3, 9.0, -2.0, NAN], [5.0, 5.0, 5.0, 5.0], [2.0, 1.0, 2.0, 0.0], [NAN, NAN, NAN, NAN]])
    assert close(found, [[0.5, 1, 0, NAN], [1, 1, 1, 1], [1, 0.5, 1, 0], [NAN, NAN, NAN, NAN]])


def test_the_batch_is_normalised_without_its_failures():
    found = apply("normalize_batch", [[1.0, 3.0, NAN], [5.0, 7.0, NAN]])
    assert close(found, [[-1.341641, -0.447214, NAN], [0.447214, 1.341641, NAN]])
    assert float(apply([{"normalize_batch": {"bound": 0.5}}], [[1.0, 3.0]]).max()) == 0.5


def test_running_moments_are_those_of_all_roll_outs_so_far():
    steps, seen = read_steps("r", ["normalize"]), {}
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[8.0, NAN]])
    _, seen = transformed(first, steps, moments=seen)
    found, seen = transformed(second, steps, moments=seen)
    assert float(seen[0].n) == 3 and math.isclose(float(seen[0].mean), 4.0)
    assert math.isclose(float(found[0, 0]), 4 / math.sqrt(26 / 3), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("center_ref", [[0.0, 2.0]]),
        ({"sigmoid_ref": {"k": 2.0, "samples": 2}}, [[0.5, 0.972941]]),
        ({"logsigmoid_ref": {"quantile": 0.5, "samples": 2}}, [[math.log(0.5), -0.126928]]),
    ],
)
def test_a_reward_is_shaped_against_reference_samples(step, expected):
    assert close(apply([step], [[1.0, 3.0]], reference=torch.tensor([[0.5, 1.5]])), expected)


def test_what_stands_before_a_reference_step_shapes_the_references_too():
    given = torch.tensor([[10.0, 14.0]])
    shifted = transformed(given, read_steps("r", [{"affine": {"scale": 0.5}}, "center_ref"]), reference=given)[0]
    assert close(shifted, [[-1.0, 1.0]])


def test_moments_are_not_moved_by_references():
    steps = read_steps("r", ["normalize", "sigmoid_ref"])
    _, seen = transformed(torch.tensor([[1.0, 3.0]]), steps, reference=torch.tensor([[100.0]]))
    assert float(seen[0].mean) == 2


def test_a_gradient_passes_through_the_smooth_ones():
    leaf = torch.tensor([[0.2, 0.7]], requires_grad=True)
    found, _ = transformed(leaf, read_steps("r", [{"affine": {"scale": 3}}, "sigmoid_ref"]), reference=leaf.detach())
    found.sum().backward()
    assert bool((leaf.grad > 0).all())


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["afine"], "did you mean `affine`"),
        ([{"affine": {"scal": 1}}], "did you mean `scale`"),
        ([{"affine": 2}], "takes a mapping of options"),
        ([{"affine": {}, "clamp": {}}], "unknown transform"),
        ([3], "unknown transform"),
        ([{"deadband": {"low": 1}}], "missing option of transform deadband: high"),
        ([{"clamp": {"low": 2, "high": 1}}], "clamp needs low < high"),
        ([{"sigmoid_ref": {"k": -1}}], "k must be positive"),
        ([{"sigmoid_ref": {"samples": 0}}], "samples >= 1"),
        (["rank", "sigmoid_ref"], "put it first"),
        (["center_ref", "sigmoid_ref"], "put it first"),
        ([{"affine": {"scale": "x"}}], "reward_transforms of r"),
    ],
)
def test_mistakes_are_told_before_the_run(steps, message):
    with pytest.raises(ValueError, match=message):
        read_steps("r", steps)


def test_a_reference_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="reference samples"):
        apply(["center_ref"], [[1.0]])


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_nan_stays_nan_and_alone(name):
    options = {"deadband": {"low": 0.1, "high": 0.9}}.get(name, {})
    found = apply([{name: options}], [[0.2, NAN, 0.6]], reference=torch.tensor([[0.3]]))
    assert found.isnan().tolist() == [[False, True, False]]
