"""The paired bootstrap: closed forms, coverage, what strata, pairs and clusters must do to the interval."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.evaluation.bootstrap import paired_bootstrap


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_tasks(n: int) -> list[str]:
    return ["colors"] * n + ["counting"] * n


def width(interval) -> float:
    return interval.high - interval.low


def test_constant_gain_has_no_spread():
    before = torch.rand(40, generator=rng(), dtype=torch.float64)
    interval = paired_bootstrap(before, before + 0.1, two_tasks(20))
    assert interval.gain == pytest.approx(0.1, abs=1e-12)
    assert interval.low == pytest.approx(0.1, abs=1e-12)
    assert interval.high == pytest.approx(0.1, abs=1e-12)


def test_overall_is_the_unweighted_mean_of_task_means():
    interval = paired_bootstrap([0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.5], ["a", "b", "b", "b"])
    assert (interval.before, interval.after) == pytest.approx((0.5, 0.75))
    assert interval.gain == pytest.approx(0.25)
    assert interval.per_task["a"][:5] == pytest.approx((1.0, 1.0, 1.0, 0.0, 1.0))
    assert interval.per_task["b"].gain == pytest.approx(-0.5)


def test_width_follows_the_standard_error_of_a_stratified_mean():
    sizes = {"a": 40, "b": 160}
    gains = torch.randn(200, generator=rng(1), dtype=torch.float64)
    tasks = [task for task, n in sizes.items() for _ in range(n)]
    interval = paired_bootstrap(torch.zeros(200), gains, tasks, draws=20_000)
    variance = gains[:40].var(correction=0) / 40 + gains[40:].var(correction=0) / 160
    assert width(interval) == pytest.approx(2 * 1.95996 * math.sqrt(variance) / 2, rel=0.04)


def test_level_sets_the_width():
    gains = torch.randn(400, generator=rng(2))
    wide, narrow = (
        paired_bootstrap(torch.zeros(400), gains, ["a"] * 400, level=p, draws=20_000) for p in (0.95, 0.6827)
    )
    assert width(wide) / width(narrow) == pytest.approx(1.96, rel=0.05)


def test_coverage_of_the_true_gain():
    """400 experiments with skewed 0/0.25/.../1 scores; the binomial error of the coverage is 0.011."""
    generator, hits, truth = rng(3), 0, 0.15
    for trial in range(400):
        skill = torch.rand(60, generator=generator) * 0.8
        before = torch.bernoulli(skill.expand(4, -1), generator=generator).mean(0)
        after = torch.bernoulli((skill + truth).expand(4, -1), generator=generator).mean(0)
        interval = paired_bootstrap(before, after, two_tasks(30), draws=400, seed=trial)
        hits += interval.low <= truth <= interval.high
    assert 0.91 <= hits / 400 <= 0.98


def test_differences_between_tasks_do_not_widen_the_interval():
    after = torch.cat([torch.zeros(20), torch.ones(20)])
    interval = paired_bootstrap(torch.zeros(40), after, two_tasks(20))
    assert (interval.gain, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))


def test_pairing_shrinks_the_interval():
    before = torch.rand(100, generator=rng(4))
    after = before + 0.1 + 0.02 * torch.randn(100, generator=rng(5))
    paired = paired_bootstrap(before, after, ["a"] * 100)
    broken = paired_bootstrap(before, after[torch.randperm(100, generator=rng(6))], ["a"] * 100)
    assert broken.gain == pytest.approx(paired.gain)
    assert width(paired) < 0.2 * width(broken)


def test_repeated_lines_of_one_prompt_add_no_evidence():
    before, after = torch.rand(2, 40, generator=rng(7))
    prompts, tasks = [f"prompt {i}" for i in range(40)], two_tasks(20)
    once = paired_bootstrap(before, after, tasks, prompts)
    repeated = [before.repeat_interleave(4), after.repeat_interleave(4), [t for t in tasks for _ in range(4)]]
    clustered = paired_bootstrap(*repeated, [p for p in prompts for _ in range(4)])
    naive = paired_bootstrap(*repeated)
    assert clustered[:5] == pytest.approx(once[:5])
    assert width(naive) == pytest.approx(width(once) / 2, rel=0.15)


def test_a_cluster_weighs_by_its_lines():
    """Two clusters of 3 lines (gain 0) and 1 line (gain 1): resamples can only give 0, 1/4 and 1."""
    interval = paired_bootstrap([0.0] * 4, [0.0, 0.0, 0.0, 1.0], ["a"] * 4, ["x", "x", "x", "y"])
    assert (interval.gain, interval.low, interval.high) == pytest.approx((0.25, 0.0, 1.0))


def test_the_same_text_in_two_tasks_is_two_clusters():
    before, after, tasks = [0.0, 0.0], [0.2, 0.6], ["a", "b"]
    interval = paired_bootstrap(before, after, tasks, ["same", "same"])
    assert interval[:3] == pytest.approx((0.4, 0.4, 0.4))


def test_seed_decides_and_global_generator_is_untouched():
    before, after = torch.rand(2, 40, generator=rng(8))
    state = torch.get_rng_state()
    first, again, other = (paired_bootstrap(before, after, two_tasks(20), seed=s) for s in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert torch.equal(state, torch.get_rng_state())


def test_swapping_the_models_mirrors_the_interval():
    before, after = torch.rand(2, 40, generator=rng(9))
    there, back = (paired_bootstrap(a, b, two_tasks(20)) for a, b in ((before, after), (after, before)))
    assert (back.gain, back.low, back.high) == pytest.approx((-there.gain, -there.high, -there.low))


@pytest.mark.parametrize(
    ("before", "after", "tasks", "options", "match"),
    [
        ([0.0], [0.0, 1.0], ["a"], {}, "same prompts"),
        ([], [], [], {}, "nothing to resample"),
        ([0.0], [1.0], ["a", "b"], {}, "1 tasks"),
        ([0.0], [1.0], ["a"], {"clusters": []}, "cluster labels"),
        ([0.0], [float("nan")], ["a"], {}, "not finite"),
        ([0.0], [1.0], ["a"], {"draws": 0}, "draws"),
        ([0.0], [1.0], ["a"], {"level": 95}, "level"),
    ],
)
def test_bad_input_is_refused(before, after, tasks, options, match):
    with pytest.raises(ValueError, match=match):
        paired_bootstrap(before, after, tasks, **options)
