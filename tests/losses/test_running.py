from __future__ import annotations

import json

import pytest
import torch

from diffalign.losses import group_advantage, group_std, running_advantage

F64 = torch.float64
NAN = float("nan")


def values(*x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=F64)


def test_the_whole_batch_speaks_until_a_prompt_has_enough_entries() -> None:
    prompts, rewards = ["a", "a", "b", "b"], values(0, 2, 10, 12)
    history, adv = running_advantage({}, prompts, rewards, min_count=4, eps=0.0)
    assert history == {"a": [0, 2], "b": [10, 12]}
    assert adv.tolist() == pytest.approx(((rewards - 6) / 26**0.5).tolist())
    history, adv = running_advantage(history, ["a", "a", "b"], values(4, 6, 17), min_count=4, eps=0.0)
    assert history == {"a": [0, 2, 4, 6], "b": [10, 12, 17]}
    assert adv[:2].tolist() == pytest.approx([1 / 5**0.5, 3 / 5**0.5])  # a: mean 3, population variance 5
    assert adv[2].item() == pytest.approx((17 - 9) / ((25 + 9 + 64) / 3) ** 0.5)  # b still by the batch 4, 6, 17


def test_this_batch_counts_towards_the_threshold() -> None:
    _, adv = running_advantage({}, ["a"] * 4 + ["b"], values(0, 2, 4, 6, 1000), min_count=4, eps=0.0)
    assert adv[:4].tolist() == pytest.approx([-3 / 5**0.5, -1 / 5**0.5, 1 / 5**0.5, 3 / 5**0.5])


def test_one_batch_of_one_prompt_is_the_population_group_advantage() -> None:
    rewards = torch.randn(20, dtype=F64)
    _, adv = running_advantage({}, ["a"] * 20, rewards)
    same = group_advantage(rewards[None], scale=lambda r, m, eps: group_std(r, m, eps, unbiased=False))
    assert torch.allclose(adv, same[0], atol=1e-12)


def test_only_the_last_entries_are_kept() -> None:
    history, _ = running_advantage({}, ["a"] * 5, values(1, 2, 3, 4, 5), buffer_size=3, min_count=2)
    assert history == {"a": [3, 4, 5]}
    history, adv = running_advantage(history, ["a"], values(6), buffer_size=3, min_count=2, eps=0.0)
    assert history == {"a": [4, 5, 6]} and adv.item() == pytest.approx(1.5**0.5)


def test_history_is_pure_and_survives_json() -> None:
    past = {"a": [1.0, 3.0]}
    rewards = values(2, 7)
    first = running_advantage(past, ["a", "b"], rewards, min_count=2)
    assert past == {"a": [1.0, 3.0]}
    again = running_advantage(json.loads(json.dumps(past)), ["a", "b"], rewards, min_count=2)
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    history = json.loads(json.dumps(first[0]))
    resumed = running_advantage(history, ["b"], rewards[:1], min_count=2)
    assert torch.equal(resumed[1], running_advantage(first[0], ["b"], rewards[:1], min_count=2)[1])


def test_defaults_are_32_rewards_of_which_16_are_needed() -> None:
    history, _ = running_advantage({}, ["a"] * 33, torch.arange(33.0))
    assert history == {"a": [float(i) for i in range(1, 33)]}
    rewards = values(*range(16), 1000)
    _, alone = running_advantage({}, ["a"] * 16 + ["b"], rewards)
    assert alone[15].item() == pytest.approx(7.5 / 21.25**0.5)  # variance of 0 to 15
    _, crowd = running_advantage({}, ["a"] * 15 + ["b", "b"], rewards)
    assert -0.3 < crowd[0] < crowd[14] < -0.2  # below the 1000 of the other prompt


def test_one_entry_may_be_enough_and_eps_is_added() -> None:
    _, adv = running_advantage({}, ["a", "b"], values(3, 5), min_count=1)
    assert adv.tolist() == [0, 0]
    _, adv = running_advantage({}, ["a", "a"], values(3, 5), min_count=1, eps=1.0)
    assert adv.tolist() == [-0.5, 0.5]
    with pytest.raises(ValueError, match="min_count"):
        running_advantage({}, ["a"], values(1), min_count=0)


def test_groups_of_one_learn_from_the_past() -> None:
    history: dict[str, list[float]] = {}
    for step in range(20):
        history, adv = running_advantage(history, ["a", "b"], values(step, 100 + step % 2), min_count=4)
    assert adv[0] > 1 and adv[1] > 0.5  # both above their own past, though a is far below b


def test_unscored_rewards_enter_nothing() -> None:
    clean = running_advantage({}, ["a", "b"], values(1, 3))
    holes = running_advantage({}, ["a", "a", "b", "c"], values(1, NAN, 3, float("inf")))
    assert holes[0] == clean[0] and holes[1][[0, 2]].equal(clean[1]) and holes[1][[1, 3]].tolist() == [0, 0]
    history, adv = running_advantage({}, ["a"], values(NAN))
    assert history == {} and adv.tolist() == [0]


@pytest.mark.parametrize("n", [1, 3, 20, 49, 98])
@pytest.mark.parametrize("value", [0.1, 1 / 49, 1e-5])
def test_equal_rewards_give_exactly_zero(n: int, value: float) -> None:
    rewards = torch.full((n,), value, dtype=F64)
    _, adv = running_advantage({}, ["a"] * n, rewards, buffer_size=100, eps=1e-30)
    assert torch.equal(adv, torch.zeros_like(rewards))


def test_result_is_detached_and_wide() -> None:
    adv = running_advantage({}, ["a", "b"], torch.randn(2, requires_grad=True))[1]
    assert not adv.requires_grad and adv.dtype == torch.float32
    assert running_advantage({}, ["a", "b"], torch.randn(2).half())[1].dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(ValueError, match="2 prompts"):
        running_advantage({}, ["a", "b"], values(1, 2, 3))
    with pytest.raises(ValueError, match=r"\(N,\)"):
        running_advantage({}, ["a"], torch.zeros(1, 1))
    with pytest.raises(ValueError, match="min_count"):
        running_advantage({}, ["a"], values(1), buffer_size=8, min_count=16)
