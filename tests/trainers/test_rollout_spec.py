"""Prompts, seeds and order of a rollout: a pure function of (seed, index)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from diffalign.trainers import PolicyGradientConfig
from diffalign.trainers.policy_gradient_plan import window_start
from diffalign.trainers.rollouts.spec import sample_spec


def records(counts):
    return [{"prompt": f"{tag} {i}", "metadata": {"tag": tag}} for tag, n in counts.items() for i in range(n)]


TEN = records({"colors": 6, "counting": 4})


def config(**keys):
    window = {"sde_window_size": 1} if "prefix_branches" in keys else {}
    return PolicyGradientConfig(**{"num_generations": 4, "prompts_per_rollout": 3, **window, **keys})


def fields(found):
    return found.records, found.seeds, found.branches, found.record_of.tolist(), found.order.tolist()


def test_a_draw_depends_on_seed_and_index_alone():
    before = torch.get_rng_state()
    first = fields(sample_spec(config(), TEN, 3))
    torch.manual_seed(99)
    middle = torch.get_rng_state()
    assert fields(sample_spec(config(), TEN, 3)) == first
    assert torch.equal(torch.get_rng_state(), middle), "the global generator was used"
    assert fields(sample_spec(config(), TEN, 4)) != first
    assert fields(sample_spec(config(seed=1), TEN, 3)) != first
    torch.set_rng_state(before)


def test_settings_of_one_stream_do_not_shift_another():
    plain, other = (
        sample_spec(config(), TEN, 5),
        sample_spec(config(num_generations=6, same_initial_noise=True), TEN, 5),
    )
    assert plain.records == other.records


def test_prompts_are_distinct_while_there_are_enough():
    for index in range(20):
        assert len({r["prompt"] for r in sample_spec(config(prompts_per_rollout=10), TEN, index).records}) == 10
    assert len(sample_spec(config(prompts_per_rollout=12), TEN, 0).records) == 12
    seen = Counter(r["prompt"] for index in range(200) for r in sample_spec(config(), TEN, index).records)
    assert len(seen) == 10 and min(seen.values()) > 30  # 60 expected of each, sd 6.5


def test_tasks_are_drawn_by_their_weights_whatever_their_size():
    unequal = records({"colors": 30, "counting": 5, "position": 5})
    weighted = config(prompts_per_rollout=1, task_weights={"colors": 1.0, "counting": 3.0})
    tags = Counter(sample_spec(weighted, unequal, index).records[0]["metadata"]["tag"] for index in range(1000))
    assert tags["position"] == 0
    assert 0.70 < tags["counting"] / 1000 < 0.80  # .75, sd .014
    uniform = Counter(
        sample_spec(config(prompts_per_rollout=1), unequal, index).records[0]["metadata"]["tag"]
        for index in range(1000)
    )
    assert 0.69 < uniform["colors"] / 1000 < 0.81  # every prompt alike


def test_an_unknown_task_is_refused_with_the_ones_there_are():
    with pytest.raises(ValueError, match=r"\['colours'\].*\['colors', 'counting'\]"):
        sample_spec(config(task_weights={"colours": 1.0}), TEN, 0)


def test_samples_of_a_prompt_stand_together():
    found = sample_spec(config(), TEN, 0)
    assert found.samples == 12
    assert [r["prompt"] for r in found.sample_records] == [r["prompt"] for r in found.records for _ in range(4)]


def test_each_sample_has_its_own_noise_unless_the_group_shares_it():
    assert len(set(sample_spec(config(), TEN, 0).seeds)) == 12
    shared = sample_spec(config(same_initial_noise=True), TEN, 0)
    groups = [set(shared.seeds[i : i + 4]) for i in (0, 4, 8)]
    assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3
    assert all(len(set(shared.branches[i : i + 4])) == 4 for i in (0, 4, 8))


@pytest.mark.parametrize("keys", [{}, {"same_initial_noise": True}, {"prefix_branches": 2}])
def test_no_two_trajectories_share_all_of_their_noise(keys):
    for index in range(30):
        found = sample_spec(config(num_generations=8, prompts_per_rollout=8, **keys), TEN, index)
        assert len(set(zip(found.seeds, found.branches, strict=True))) == len(found.seeds)


def test_branches_of_a_prefix_are_neighbours_in_their_group():
    found = sample_spec(config(num_generations=6, prefix_branches=3), TEN, 0)
    assert found.samples == 18 and len(found.seeds) == 6 and found.copies == 3
    assert found.sample_rows(torch.tensor([0, 4])).tolist() == [0, 1, 2, 12, 13, 14]
    assert found.record_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert [r["prompt"] for r in found.sample_records] == [r["prompt"] for r in found.records for _ in range(6)]


@pytest.mark.parametrize("branches", [1, 3])
@pytest.mark.parametrize("size", [1, 4, 7, 100])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_micro_batches_hold_every_sample_once(branches, size, parts):
    found = sample_spec(config(num_generations=6, prefix_branches=branches), TEN, 2)
    updates = found.micro_batches(size, parts)
    rows = [found.sample_rows(roots) for update in updates for roots in update]
    assert len(updates) == parts
    assert torch.cat(rows).sort().values.tolist() == list(range(18))
    assert max(len(row) for row in rows) <= max(size, branches)


def test_what_an_update_sees_does_not_depend_on_the_batch_size():
    found = sample_spec(config(), TEN, 2)
    shares = [[torch.cat(update).tolist() for update in found.micro_batches(size, 5)] for size in (1, 2, 3, 100)]
    assert all(share == shares[0] for share in shares)
    assert sorted(map(len, shares[0])) == [2, 2, 2, 3, 3]


def test_images_of_one_prompt_are_spread_over_updates():
    halves = sample_spec(config(num_generations=16), TEN, 0).micro_batches(8, 2)
    prompts = [{int(root) // 16 for piece in half for root in piece} for half in halves]
    assert prompts == [{0, 1, 2}, {0, 1, 2}]


def test_windows_start_where_they_may_and_everywhere_there():
    moving = config(num_inference_steps=10, sde_window_size=2, sde_window_range=[1, 5])
    starts = [window_start(moving, index) for index in range(60)]
    assert set(starts) == {1, 2, 3, 4} and starts == [window_start(moving, index) for index in range(60)]
    assert starts != [window_start(config(**vars(moving) | {"seed": 1}), index) for index in range(60)]
    assert config(num_inference_steps=10, sde_window_size=2).window_starts() == range(8)  # clear of the last step
    assert config(num_inference_steps=10, sde_window_size=10).window_starts() == range(1)
    assert {window_start(config(), index) for index in range(5)} == {0}
