from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from diffalign.losses import baselines as B
from diffalign.losses import group_advantage, no_scale
from diffalign.losses.advantages import group_std

F64 = torch.float64
NAN = float("nan")


def rewards(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=F64)


def centred(r: Tensor, center, **kwargs: object) -> Tensor:
    return group_advantage(r, center=center, scale=no_scale, **kwargs)


def test_median() -> None:
    assert centred(rewards([5, 1, 9]), B.median_center)[0].tolist() == [0, -4, 4]
    assert centred(rewards([5, 1, 9, 6]), B.median_center)[0].tolist() == [-0.5, -4.5, 3.5, 0.5]
    assert centred(rewards([5, NAN, 1, 9], [NAN] * 4), B.median_center).tolist() == [[0, 0, -4, 4], [0, 0, 0, 0]]


def test_max_is_never_exceeded() -> None:
    assert centred(rewards([5, 1, 9], [-5, -1, -9]), B.max_center).tolist() == [[-4, -8, 0], [-4, 0, -8]]
    holed = centred(rewards([5, NAN, 9], [NAN] * 3), B.max_center)
    assert holed.tolist() == [[-4, 0, 0], [0, 0, 0]]


def test_given_per_prompt_or_per_sample() -> None:
    r = rewards([1, 2], [3, 5])
    for baseline in (torch.tensor([0.5, 4.0]), torch.tensor([[0.5], [4.0]])):
        assert centred(r, partial(B.given_center, baseline=baseline)).tolist() == [[0.5, 1.5], [-1, 1]]
    own = torch.tensor([[1.0, 0.0], [2.0, NAN]], requires_grad=True)
    adv = centred(r, partial(B.given_center, baseline=own), mask=torch.tensor([[1, 1], [1, 0]]))
    assert adv.tolist() == [[0, 2], [1, 0]] and not adv.requires_grad
    assert not B.given_center(r, torch.ones_like(r).bool(), baseline=own).requires_grad
    with pytest.raises(ValueError, match=r"\(3,\)"):
        centred(r, partial(B.given_center, baseline=torch.zeros(3)))
    assert (
        B.given_center(r.float(), torch.ones(2, 2).bool(), baseline=torch.tensor([1.0, 2.0]).half()).dtype
        == torch.float32
    )


def test_a_baseline_per_prompt_is_lost_in_a_centring() -> None:
    r, b = torch.randn(3, 4, dtype=F64), torch.randn(3, 1, dtype=F64)
    assert torch.allclose(group_advantage(r - b), group_advantage(r), atol=1e-12)


def test_counted_mean_and_std_by_hand() -> None:
    r, n = rewards([1, 4, 2]), torch.tensor([[1, 2, 5]])
    center, scale = partial(B.counted_center, count=n), partial(B.counted_std, count=n)
    assert centred(r, center)[0].tolist() == pytest.approx([-1.375, 1.625, -0.375])
    std = ((1.375**2 + 2 * 1.625**2 + 5 * 0.375**2) / 8) ** 0.5
    adv = group_advantage(r, center=center, scale=scale, eps=0.0)
    assert adv[0].tolist() == pytest.approx([-1.375 / std, 1.625 / std, -0.375 / std])
    assert B.counted_std(r, torch.ones_like(r).bool(), 0.25, count=n).item() == pytest.approx(std + 0.25)
    assert (n * adv).sum().item() == pytest.approx(0.0, abs=1e-12)
    assert (n * adv**2).sum().item() == pytest.approx(8.0)


def test_equal_counts_are_the_population() -> None:
    torch.manual_seed(0)
    r, n = torch.randn(4, 5, dtype=F64), torch.full((4, 5), 3)
    ours = group_advantage(r, center=partial(B.counted_center, count=n), scale=partial(B.counted_std, count=n))
    assert torch.allclose(ours, group_advantage(r, scale=partial(group_std, unbiased=False)), atol=1e-12)


def test_counts_of_unusable_samples_do_not_count() -> None:
    r, n = rewards([1, NAN, 4, 2], [NAN] * 4), torch.tensor([[1, 100, 2, 5], [1, 1, 1, 1]])
    adv = centred(r, partial(B.counted_center, count=n))
    assert adv[0].tolist() == pytest.approx([-1.375, 0, 1.625, -0.375]) and adv[1].tolist() == [0] * 4
    none = torch.zeros(2, 4)
    assert torch.isfinite(centred(r, partial(B.counted_center, count=none))).all()
    equal = rewards([0.1, 0.1, 0.1])
    center = partial(B.counted_center, count=torch.tensor([[1, 2, 4]]))
    scale = partial(B.counted_std, count=torch.tensor([[1, 2, 4]]))
    assert (group_advantage(equal, center=center, scale=scale, eps=1e-30) == 0).all()


def test_counts_may_be_fractions_and_do_not_learn() -> None:
    n = torch.tensor([[0.2, 0.3]], requires_grad=True)
    adv = centred(rewards([0, 5]), partial(B.counted_center, count=n))
    assert adv[0].tolist() == pytest.approx([-3.0, 2.0], abs=1e-6) and not adv.requires_grad


def test_counts_are_checked() -> None:
    with pytest.raises(ValueError, match="count"):
        centred(rewards([1, 2]), partial(B.counted_center, count=torch.tensor([[1, -1]])))
    with pytest.raises(ValueError, match="count"):
        centred(rewards([1, 2]), partial(B.counted_center, count=torch.ones(1, 3)))


def test_virtual_samples_stand_in_the_mean() -> None:
    assert centred(rewards([0, 0, 1]), B.virtual_center)[0].tolist() == [-0.5, -0.5, 0.5]
    two = partial(B.virtual_center, n=2, r_max=4.0)
    assert centred(rewards([0, 0, 2]), two)[0].tolist() == [-2, -2, 0]
    assert centred(rewards([0, 0, 3]), partial(B.virtual_center, n=0))[0].tolist() == [-1, -1, 2]
    assert centred(rewards([0, NAN, 1]), B.virtual_center)[0].tolist() == pytest.approx([-2 / 3, 0, 1 / 3])
    grown, mask = B.with_virtual(rewards([0, 1]), torch.tensor([[True, False]]), 2, 5.0)
    assert grown.tolist() == [[0, 1, 5, 5]] and mask.tolist() == [[True, False, True, True]]
    with pytest.raises(ValueError, match="number of samples"):
        B.with_virtual(rewards([0]), torch.tensor([[True]]), -1, 1.0)


@pytest.mark.parametrize("center", [B.median_center, B.max_center, B.virtual_center])
def test_order_does_not_matter(center) -> None:
    r, order = torch.randn(3, 6, dtype=F64), torch.randperm(6)
    assert torch.allclose(centred(r[:, order], center), centred(r, center)[:, order], atol=1e-12)
