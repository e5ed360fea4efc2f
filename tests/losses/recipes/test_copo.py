from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes
from diffalign.losses.recipes.copo import answer_entropy, consistent_reward, local_share


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


F64 = torch.float64
NAN = float("nan")


def test_entropy_in_bits() -> None:
    answers = torch.tensor([[7, 7, 7, 7], [0, 1, 2, 3], [5, 5, 9, 9], [5, 5, 5, 9]])
    mixed = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert answer_entropy(answers).tolist() == pytest.approx([0.0, 2.0, 1.0, mixed])
    masked = answer_entropy(answers, mask=torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]))
    assert masked.tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0])
    assert not (answer_entropy(answers[:1]) < 0).any()
    assert answer_entropy(answers[:, torch.tensor([2, 0, 3, 1])]).tolist() == pytest.approx([0.0, 2.0, 1.0, mixed])


def test_reward_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 1.0, 1.0]] * 3, dtype=F64)
    answers = torch.tensor([[7, 7, 7, 7], [0, 1, 2, 3], [5, 5, 9, 9]])
    assert consistent_reward(rewards, answers).tolist() == pytest.approx([0.75, 0.75 / 4, 0.75 * (1 - 0.375)])


@pytest.mark.parametrize("size", [2, 3, 7])
def test_disagreement_of_all_leaves_one_over_the_group(size: int) -> None:
    full = consistent_reward(torch.ones(1, size, dtype=F64), torch.arange(size)[None])
    assert full.item() == pytest.approx(1 / size)


def test_unusable_rewards_leave_the_group() -> None:
    rewards, answers = torch.tensor([[1.0, NAN, 0.0], [2.0, NAN, NAN], [NAN] * 3]), torch.tensor([[0, 5, 1]] * 3)
    out = consistent_reward(rewards, answers)
    assert out[:2].tolist() == pytest.approx([0.25, 2.0]) and out[2].isnan()
    masked = consistent_reward(torch.tensor([[1.0, 9.0, 0.0]]), answers[:1], mask=torch.tensor([[1, 0, 1]]))
    assert masked.item() == pytest.approx(0.25)


def test_share_by_hand() -> None:
    local = torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]], dtype=F64)
    out = local_share(torch.tensor([1.5, 1.0], dtype=F64), local)
    s = 1 / (1 + math.exp(-1.0))
    assert out.tolist() == [pytest.approx([s, 0.0, s]), [0.0] * 3]
    other = local_share(torch.tensor([1.5, 1.0], dtype=F64), local, k=-2.0, b=1.0)
    assert other[0, 0].item() == pytest.approx(1 / (1 + math.exp(1.0)))


def test_nothing_learns() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    assert not consistent_reward(x, torch.zeros(2, 3)).requires_grad
    assert not local_share(x[:, 0], x).requires_grad
    assert consistent_reward(x.detach().bfloat16(), torch.zeros(2, 3)).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    for call, words in [
        (lambda: answer_entropy(torch.zeros(3)), r"\(B, G\)"),
        (lambda: answer_entropy(torch.zeros(2, 3), mask=torch.ones(2, 2)), "mask"),
        (lambda: consistent_reward(torch.zeros(2, 3), torch.zeros(2, 2)), "answers"),
        (lambda: local_share(torch.zeros(2), torch.zeros(2, 3), k=math.inf), "finite"),
        (lambda: local_share(torch.zeros(2), torch.zeros(2, 3), b=math.nan), "finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_copo() -> None:
    copo = recipes.get("copo")
    assert dict(copo.defaults) == {"k": 1.0, "b": 0.5, "eps": 0.2}
    rewards, answers = f64([1.0, 1.0], [1.0, 0.0]), torch.tensor([[4, 4], [4, 7]])
    # rewards of the prompts: 1 and 1/2 * (1 - 1/2) = 1/4; standardised +-1/sqrt 2
    broad, local = math.sqrt(0.5), math.sqrt(0.5)
    x = f64(1.5, 1.0, 1.5, 1.0).log()
    omega = 1 / (1 + math.exp(-0.5))
    out = copo(x, rewards, answers)
    assert out[:2].tolist() == pytest.approx([-broad * 1.2, -broad], rel=1e-4)  # agreed and right: only the prompts
    want = [-omega * local * 1.2 + (1 - omega) * broad * 1.5, omega * local + (1 - omega) * broad]
    assert out[2:].tolist() == pytest.approx(want, rel=1e-4)
    sharp = copo(x, rewards, answers, k=4.0, b=1.0, eps=0.1)
    assert sharp[2].item() == pytest.approx(0.5 * (-local * 1.1 + broad * 1.5), rel=1e-4)
    steps = copo(x[:, None].expand(4, 3), rewards, answers)
    assert torch.allclose(steps, out[:, None].expand(4, 3), atol=1e-12)


def test_copo_leaves_unscored_samples_alone() -> None:
    copo = recipes.get("copo")
    out = copo(torch.zeros(6, dtype=F64), f64([1.0, 0.0, NAN], [0.0, 0.0, 0.0]), torch.tensor([[1, 2, 2], [3, 3, 3]]))
    assert torch.isfinite(out).all() and out[2] == 0 and (out[3:] > 0).all()
    # the unscored sample's answer does not count: two answers of two are one bit, factor 1/2
    omega = 1 / (1 + math.exp(-0.5))
    half = math.sqrt(0.5)
    assert out[0].item() == pytest.approx(-omega * half - (1 - omega) * half, rel=1e-4)
