"""Win matrices and the scores made of them: order, circles, ties, and what could not be compared."""

from __future__ import annotations

import inspect
import itertools
import math

import pytest
import torch

from diffalign.losses import group_advantage, wins

F64 = torch.float64
NAN = math.nan


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


R = t([1.0, 3.0, 2.0, -1.0], [0.5, 0.5, 4.0, 0.0])
CIRCLE = t([[0.5, 0.7, 0.3], [0.3, 0.5, 0.7], [0.7, 0.3, 0.5]])  # 0 beats 1 beats 2 beats 0

MATRICES = {
    "bradley_terry": wins.bradley_terry,
    "indicator": wins.indicator,
    "majority": lambda r: wins.majority(torch.stack([r, r.flip(1), r**2])),
    "lexicographic": lambda r: wins.lexicographic(torch.stack([r, r.flip(1)]), margins=[0.6, 0.0]),
    "both_orders": lambda r: wins.both_orders(wins.bradley_terry(r) ** 2),
}
SCORES = {
    "mean_wins": wins.mean_wins,
    "anchor_wins": lambda p: wins.anchor_wins(p, torch.tensor([2] * len(p))),
    "copeland": wins.copeland,
    "closure_wins": wins.closure_wins,
}


@pytest.fixture(params=MATRICES.values(), ids=MATRICES)
def matrix(request):
    return request.param


@pytest.fixture(params=SCORES.values(), ids=SCORES)
def score(request):
    return request.param


def test_a_pair_has_one_winner(matrix) -> None:
    p = matrix(R)
    assert torch.allclose(p + p.mT, torch.ones_like(p))
    assert torch.equal(p.diagonal(dim1=1, dim2=2), torch.full((2, 4), 0.5, dtype=F64))


def test_permuting_samples_permutes_matrices(matrix) -> None:
    if matrix in (MATRICES["majority"], MATRICES["lexicographic"]):
        return  # made of flipped copies above
    order = [2, 0, 3, 1]
    assert torch.equal(matrix(R[:, order]), matrix(R)[:, order][:, :, order])


def test_nothing_here_has_a_gradient(matrix, score) -> None:
    r = R.clone().requires_grad_()
    p = matrix(r)
    assert not p.requires_grad and not score(p.requires_grad_()).requires_grad
    assert matrix(R.half()).dtype == torch.float32


def test_matrices_by_hand() -> None:
    r = t([1.0, 3.0, 1.0])
    assert wins.indicator(r).tolist() == [[[0.5, 0, 0.5], [1, 0.5, 1], [0.5, 0, 0.5]]]
    assert wins.bradley_terry(r)[0, 1, 0].item() == pytest.approx(1 / (1 + math.exp(-2)))
    votes = t([[1, 2]], [[3, 2]], [[5, 4]], [[NAN, 7]], [[6, 6]])  # 0.0 + 1 + 1 + 0.5 over the four who vote
    assert wins.majority(votes)[0, 0, 1].item() == 0.625


def test_the_first_factor_that_tells_apart_decides() -> None:
    factors = t([[1.0, 1.5, 1.2, NAN]], [[0.0, -1.0, 5.0, 9.0]], [[0.0, 1.0, 0.0, 2.0]])
    p = wins.lexicographic(factors, margins=[0.4, 1.0, 0.5])[0]
    assert p[0].tolist() == [0.5, 0, 0, 0]  # by the first; by the second; its gap of 9 where the first is missing
    assert p[1].tolist() == [1, 0.5, 0, 0]  # 1.5 against 1.2 is no more than .4: the second decides
    assert p[2].tolist() == [1, 1, 0.5, 0]
    assert wins.lexicographic(t([[1.0, 1.5]]), margins=[0.5])[0, 0, 1] == 0.5  # the margin itself does not decide


def test_without_margins_only_the_order_of_the_first_factor_counts() -> None:
    torch.manual_seed(0)
    f = torch.randn(3, 2, 5, dtype=F64)
    p = wins.lexicographic(f, margins=[0, 0, 0])
    assert torch.equal(p, wins.indicator(f[0]))
    assert torch.equal(p, wins.lexicographic(torch.stack([f[0].exp(), f[2], f[1]]), margins=[0, 0, 0]))


def test_each_factor_has_its_own_margin() -> None:
    f = torch.zeros(3, 1, 2, dtype=F64)
    f[2, 0, 0] = 1.0
    assert wins.lexicographic(f, margins=[0, 2, 0.5])[0, 0, 1] == 1.0
    assert wins.lexicographic(f, margins=[0, 0.5, 2])[0, 0, 1] == 0.5


def test_both_orders_take_out_a_liking_for_the_first_place() -> None:
    v = t([[0.5, 0.9], [0.6, 0.5]])
    assert wins.both_orders(v)[0, 0, 1].item() == pytest.approx((0.9 + 1 - 0.6) / 2)
    fair = wins.bradley_terry(R)
    assert torch.allclose(wins.both_orders(fair), fair)
    assert torch.allclose(wins.both_orders((fair + 0.01).clamp(max=1)), fair, atol=1e-2)
    failed = t([[NAN, NAN], [0.8, NAN]])
    assert wins.both_orders(failed)[0].tolist() == [[0.5, pytest.approx(0.35)], [pytest.approx(0.65), 0.5]]


def test_the_mean_over_a_group_is_a_half() -> None:
    for p in (wins.bradley_terry(R), wins.indicator(R), CIRCLE):
        assert torch.allclose(wins.mean_wins(p).mean(1), t(0.5).expand(len(p)))


def test_mean_wins_by_hand() -> None:
    assert torch.allclose(wins.mean_wins(wins.indicator(R)), t([1, 3, 2, 0], [1.5, 1.5, 3, 0]) / 3)
    p = wins.indicator(R)
    assert torch.equal(wins.mean_wins(p), wins.mean_wins(wins.indicator(R**3 + 2 * R)))


def test_a_circle_has_no_advantage() -> None:
    assert torch.allclose(wins.mean_wins(CIRCLE), t([0.5] * 3))
    assert group_advantage(wins.mean_wins(CIRCLE), eps=1e-3).abs().max() < 1e-12
    assert wins.copeland(CIRCLE).tolist() == [[1, 1, 1]]
    assert wins.closure_wins(CIRCLE).tolist() == [[0.5, 0.5, 0.5]]


def test_anchor_by_hand() -> None:
    p = wins.bradley_terry(R)
    out = wins.anchor_wins(p, torch.tensor([1, 3]))
    assert torch.equal(out, torch.stack([p[0, :, 1], p[1, :, 3]]))
    assert out[0, 1] == 0.5 and out[1, 3] == 0.5
    assert torch.equal(wins.anchor_wins(p, torch.tensor([0, 0])), p[:, :, 0])


def test_copeland_by_hand() -> None:
    assert wins.copeland(wins.bradley_terry(R)).tolist() == [[1, 3, 2, 0], [1.5, 1.5, 3, 0]]
    votes = t([[1, 2, 3]], [[1, 3, 2]], [[5, 1, 2]])  # sample 1: beats 0 by two votes, ties... loses to 2 by one
    assert wins.copeland(wins.majority(votes)).tolist() == [[0, 1, 2]]


def test_voters_may_use_any_scale() -> None:
    torch.manual_seed(0)
    v = torch.randn(3, 2, 5, dtype=F64)
    other = torch.stack([v[0].exp(), 5 * v[1] - 2, v[2] ** 3])
    assert torch.equal(wins.copeland(wins.majority(v)), wins.copeland(wins.majority(other)))


def test_the_closure_of_a_consistent_judge_is_the_order_of_rewards() -> None:
    assert torch.allclose(wins.closure_wins(wins.bradley_terry(R[:1])), t([1, 3, 2, 0]) / 3)
    for order in itertools.permutations(range(4)):
        r = t([float(x) for x in order])
        assert torch.allclose(wins.closure_wins(wins.bradley_terry(r)), r / 3)


def test_the_closure_passes_wins_on() -> None:
    p = t([[0.5, 0.6, 0.4], [0.4, 0.5, 0.6], [0.6, 0.4, 0.5]])
    p[0, 0, 2], p[0, 2, 0] = NAN, NAN  # 0 over 1 over 2; the end never met the start
    assert wins.closure_wins(p).tolist() == [[1, 0.5, 0]]
    chain = torch.full((1, 5, 5), NAN, dtype=F64)
    for winner, loser in ((3, 1), (1, 4), (4, 0), (0, 2)):
        chain[0, winner, loser], chain[0, loser, winner] = 0.9, 0.1
    assert wins.closure_wins(chain).tolist() == [[0.25, 0.75, 0, 1, 0.5]]


def test_a_tie_of_the_closure_is_broken_by_mean_win_rates() -> None:
    p = t([[0.5, 0.9, 0.3], [0.1, 0.5, 0.7], [0.7, 0.3, 0.5]])  # a circle, and 0 wins most
    assert wins.closure_wins(p).tolist() == [[1, 0, 0.5]]
    assert wins.closure_wins(p, tie=1.0).tolist() == [[0.5, 0.5, 0.5]]
    assert inspect.signature(wins.closure_wins).parameters["tie"].default == 1e-5
    even = t([[0.5, 0.5], [0.5, 0.5]])
    assert wins.closure_wins(even).tolist() == [[0.5, 0.5]]


def test_what_was_not_scored_is_compared_with_nobody(score) -> None:
    r = R.clone()
    r[0, 3], r[1, 3] = NAN, math.inf
    for p in (wins.bradley_terry(r), wins.indicator(r), wins.majority(r[None])):
        assert p.isnan().any(2).all() and not p[:, :3, :3].isnan().any()
        out = score(p)
        assert out[:, 3].isnan().all()
        assert torch.allclose(out[:, :3], score(p[:, :3, :3]))


@pytest.mark.parametrize("scores", [wins.mean_wins, wins.copeland, wins.closure_wins])
def test_alone_there_is_nobody_to_beat(scores) -> None:
    assert scores(t([[0.5]])).isnan().all() and wins.difference_advantage(t([[0.0]])).isnan().all()


def test_differences_of_rewards_are_the_group_advantage() -> None:
    d = R[:, :, None] - R[:, None, :]
    expected = group_advantage(R, eps=0.0)
    assert torch.allclose(wins.difference_advantage(d, eps=0.0), expected)
    assert torch.allclose(wins.difference_advantage(d), expected, atol=1e-5)
    assert torch.allclose(wins.difference_advantage(7 * d, eps=0.0), expected)
    assert wins.difference_advantage(d).sum(1).abs().max() < 1e-12


def test_differences_by_hand() -> None:
    d = t([[0, 3, -1], [-3, 0, 2], [1, -2, 0]])
    root = math.sqrt(28 / 12 + 0.5)
    assert torch.allclose(wins.difference_advantage(d, eps=0.5), t([2, -1, -1]) / 3 / root)
    failed = t([[0, NAN], [NAN, 0]])
    assert wins.difference_advantage(failed).tolist() == [[0, 0]]
    tiny = wins.difference_advantage(t([[0, 1e-3], [-1e-3, 0]]))  # eps is inside the root
    assert tiny[0, 0].item() == pytest.approx(5e-4 / math.sqrt(0.5e-6 + 1e-6))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: wins.indicator(t(1, 2)), r"\(B, G\)"),
        (lambda: wins.indicator(torch.zeros(2, 0)), "at least one sample"),
        (lambda: wins.majority(R), r"\(K, B, G\)"),
        (lambda: wins.lexicographic(R[None], margins=[0, 0]), "1 factors need 1 margins, got 2"),
        (lambda: wins.lexicographic(R[None], margins=[-1.0]), "margins must be"),
        (lambda: wins.mean_wins(R), r"\(B, G, G\)"),
        (lambda: wins.mean_wins(torch.zeros(1, 2, 3)), r"\(B, G, G\)"),
        (lambda: wins.mean_wins(torch.zeros(0, 2, 2)), r"\(B, G, G\)"),
        (lambda: wins.both_orders(CIRCLE + 1), "verdicts must be"),
        (lambda: wins.both_orders(CIRCLE - 1), "verdicts must be"),
        (lambda: wins.anchor_wins(CIRCLE, torch.tensor([3])), r"0..2, got \[3\]"),
        (lambda: wins.anchor_wins(CIRCLE, torch.tensor([-1])), "0..2"),
        (lambda: wins.anchor_wins(CIRCLE, torch.tensor([0, 1])), "1 integers"),
        (lambda: wins.anchor_wins(CIRCLE, t(1.0)), "integers"),
        (lambda: wins.difference_advantage(CIRCLE), "antisymmetric"),
        (lambda: wins.difference_advantage(t([[0, 1], [-1.01, 0]])), "antisymmetric"),
        (lambda: wins.difference_advantage(CIRCLE - CIRCLE.mT, eps=-1.0), "eps"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
