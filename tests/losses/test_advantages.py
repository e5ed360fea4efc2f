from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from diffalign.losses import advantages as A

F64 = torch.float64
POPULATION = partial(A.group_std, unbiased=False)
CENTERS = [A.mean_center, A.loo_center, A.no_center]
SCALES = [A.group_std, POPULATION, A.batch_std, A.no_scale]
NAN = float("nan")


def rewards(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=F64)


def test_a_pair_is_compared_with_each_other() -> None:
    r = rewards([1, 4])
    assert A.loo_center(r, torch.ones(1, 2, dtype=torch.bool)).tolist() == [[4, 1]]
    assert A.group_advantage(r, center=A.loo_center, scale=A.no_scale).tolist() == [[-3, 3]]


def test_eps_is_a_millionth_by_default() -> None:
    expected = 1e-6 / (2**0.5 * 1e-6 + 1e-6)  # unbiased std of 0 and 2e-6
    assert A.group_advantage(rewards([0, 2e-6]))[0].tolist() == pytest.approx([-expected, expected])


@pytest.mark.parametrize(
    ("center", "scale", "expected"),
    [
        (A.mean_center, POPULATION, [-1.0690, -0.5345, 0.0, 1.6036]),
        (A.mean_center, A.batch_std, [-1.0690, -0.5345, 0.0, 1.6036]),
        (A.mean_center, A.group_std, [-0.9258, -0.4629, 0.0, 1.3887]),
        (A.loo_center, A.no_scale, [-2.6667, -1.3333, 0.0, 4.0]),
        (A.mean_center, A.no_scale, [-2.0, -1.0, 0.0, 3.0]),
        (A.no_center, A.no_scale, [1.0, 2.0, 3.0, 6.0]),
    ],
)
def test_golden_values(center, scale, expected: list[float]) -> None:
    adv = A.group_advantage(rewards([1, 2, 3, 6]), center=center, scale=scale, eps=0.0)
    assert adv[0].tolist() == pytest.approx(expected, abs=5e-5)


def test_leave_one_out_is_a_rescaled_mean() -> None:
    r = torch.randn(5, 7, dtype=F64)
    loo = A.group_advantage(r, center=A.loo_center, scale=A.no_scale)
    assert torch.allclose(loo, 7 / 6 * A.group_advantage(r, scale=A.no_scale), atol=1e-12)


@pytest.mark.parametrize("center", [A.mean_center, A.loo_center])
@pytest.mark.parametrize("scale", SCALES)
def test_constant_rewards_give_exactly_zero(center, scale) -> None:
    r = torch.full((3, 7), 0.1)  # 0.1 has no exact mean in floating point, and the eps here would blow an error up
    adv = A.group_advantage(r, center=center, scale=scale, eps=1e-30)
    assert torch.equal(adv, torch.zeros(3, 7))


@pytest.mark.parametrize("center", CENTERS[:2])
@pytest.mark.parametrize("scale", SCALES)
def test_a_group_of_one_teaches_nothing(center, scale) -> None:
    assert (A.group_advantage(rewards([5.0], [7.0]), center=center, scale=scale) == 0).all()


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bad", [NAN, float("inf"), float("-inf")])
def test_unscored_samples_leave_the_statistics(center, scale, bad: float) -> None:
    full = A.group_advantage(rewards([1, 2, 6], [4, 4, 9]), center=center, scale=scale)
    holes = A.group_advantage(rewards([1, bad, 2, 6], [4, 4, 9, bad]), center=center, scale=scale)
    assert torch.allclose(holes[0, [0, 2, 3]], full[0], atol=1e-12) and torch.allclose(
        holes[1, :3], full[1], atol=1e-12
    )
    assert holes[0, 1] == 0 and holes[1, 3] == 0


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("scale", SCALES)
def test_masked_means_the_same_as_unscored(center, scale) -> None:
    mask = torch.tensor([[1, 0, 1, 1]])
    masked = A.group_advantage(rewards([1, 1e9, 2, 6]), center=center, scale=scale, mask=mask)
    assert torch.equal(masked, A.group_advantage(rewards([1, NAN, 2, 6]), center=center, scale=scale))


def test_a_group_without_any_score_is_zero_and_leaves_the_others_alone() -> None:
    both = A.group_advantage(rewards([NAN, NAN], [1, 3]), scale=A.batch_std)
    assert both[0].tolist() == [0, 0] and torch.equal(both[1:], A.group_advantage(rewards([1, 3]), scale=A.batch_std))


def test_shift_and_scale() -> None:
    r = torch.randn(4, 6, dtype=F64)
    prompt = torch.randn(4, 1, dtype=F64).exp()
    moved = A.group_advantage(3 * r + 100 * prompt, eps=0.0)
    assert torch.allclose(moved, A.group_advantage(r, eps=0.0), atol=1e-10)
    # a per-prompt factor is erased by a group scale and kept by a batch scale
    assert torch.allclose(A.group_advantage(prompt * r, eps=0.0), A.group_advantage(r, eps=0.0), atol=1e-10)
    share = partial(A.group_advantage, scale=A.batch_std, eps=0.0)
    assert (share(prompt * r) - share(r)).abs().max() > 0.1


def test_batch_scale_is_one_number_for_all_groups() -> None:
    r = rewards([0, 2], [10, 30])
    adv = A.group_advantage(r, scale=A.batch_std, eps=0.0)
    assert adv.flatten().tolist() == pytest.approx([-x / r.std(correction=0).item() for x in (1, -1, 10, -10)])
    assert A.group_advantage(r, eps=0.0).abs().flatten().tolist() == pytest.approx([0.5**0.5] * 4)


def test_eps_stands_outside_the_root_and_clip_bounds_the_result() -> None:
    assert A.group_advantage(rewards([0, 2]), scale=POPULATION, eps=1.0)[0].tolist() == [-0.5, 0.5]
    assert A.group_advantage(rewards([0, 0, 0, 8]), scale=A.no_scale, clip=5.0)[0].tolist() == [-2, -2, -2, 5]
    assert A.group_advantage(rewards([0, 9, 9, 9]), scale=A.no_scale, clip=5.0)[0, 0] == -5
    assert A.group_advantage(rewards([0, 2]), scale=A.no_scale, clip=0.5)[0].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("scale", [A.group_std, POPULATION, A.batch_std])
def test_a_small_spread_far_from_zero_keeps_its_digits(scale) -> None:
    steps = torch.tensor([[0.0, 1.0, 2.0, 5.0]])
    far = 1e4 + steps / 1024  # exact in fp32
    near = A.group_advantage(steps / 1024, scale=scale, eps=0.0)
    assert far.dtype == torch.float32 and near[0].abs().max() > 1
    assert torch.allclose(A.group_advantage(far, scale=scale, eps=0.0), near, atol=1e-6)


def test_samples_may_come_in_any_order() -> None:
    r, order = torch.randn(3, 6, dtype=F64), torch.randperm(6)
    for center in CENTERS:
        shuffled = A.group_advantage(r[:, order], center=center)
        assert torch.allclose(shuffled, A.group_advantage(r, center=center)[:, order], atol=1e-12)


def test_result_is_detached_and_wide() -> None:
    adv = A.group_advantage(torch.randn(2, 3, requires_grad=True))
    assert not adv.requires_grad and adv.dtype == torch.float32
    assert A.group_advantage(torch.randn(2, 3).bfloat16()).dtype == torch.float32
    assert A.group_advantage(torch.randn(2, 3, dtype=F64)).dtype == F64


def test_spread_tells_the_groups_that_teach() -> None:
    r = rewards([1, 1, 1], [1, 2, 1], [NAN, 3, 3], [NAN, NAN, NAN], [NAN, 3, 4], [1, 1.05, 1])
    assert A.has_spread(r).tolist() == [False, True, False, False, True, True]
    assert A.has_spread(r, tol=0.1).tolist() == [False, True, False, False, True, False]
    assert A.zero_variance_share(r).item() == pytest.approx(0.5)
    assert A.has_spread(r, mask=torch.tensor([[1, 0, 1]] * 6)).tolist() == [False, False, False, False, False, False]


def test_spread_is_where_the_advantage_is_not_zero() -> None:
    r = torch.randint(0, 2, (50, 3)).float() / 10
    assert torch.equal(A.has_spread(r), A.group_advantage(r).abs().amax(1) > 0)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 3), (3, 0)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, G\)"):
        A.group_advantage(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\(B, G\)"):
        A.has_spread(torch.zeros(shape))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        A.group_advantage(torch.zeros(2, 3), mask=torch.ones(3, 2))
    with pytest.raises(ValueError, match="clip"):
        A.group_advantage(torch.zeros(2, 3), clip=0.0)
