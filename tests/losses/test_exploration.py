from __future__ import annotations

import pytest
import torch

from diffalign.losses.exploration import cover, elliptical, start_gram, ucb_gap

D = torch.float64
SCORE = torch.tensor([[0.3, -0.2, 1.0], [0.0, 0.0, 2.0]], dtype=D)


def sigmoid(x: float) -> float:
    return torch.tensor(x, dtype=D).sigmoid().item()


def test_gap_by_hand() -> None:
    score, std = torch.tensor([[1.0, 0.0]], dtype=D), torch.tensor([[0.1, 0.3]], dtype=D)
    gap, first = ucb_gap(score, std)  # upper: 1.2 + .6, .6 - .8; lower: .8 - .6, -.6 - 1.2
    assert gap.item() == pytest.approx(sigmoid(1.8) - sigmoid(0.2)) and first.item() == 0
    assert ucb_gap(score, std, u=1.0).gap.item() == pytest.approx(sigmoid(1.4) - sigmoid(0.6))
    loud = ucb_gap(score, torch.tensor([[0.0, 2.0]], dtype=D))  # upper: 1 + 4, 4 - 1; lower: 1 - 4, -4 - 1
    assert loud.gap.item() == pytest.approx(sigmoid(5) - sigmoid(-3)) and loud.first.item() == 0
    three = ucb_gap(torch.tensor([[1.0, 0.0, 0.5]], dtype=D), torch.zeros(1, 3, dtype=D))
    assert three.gap.item() == 0 and three.first.item() == 0


def test_a_borda_score_is_the_mean_over_the_others() -> None:
    score, std = torch.tensor([[1.0, 0.0, -0.5]], dtype=D), torch.tensor([[0.2, 0.0, 0.1]], dtype=D)
    upper = (sigmoid(1.4) + sigmoid(1.4 + 0.7)) / 2  # the third reaches down to -.7
    lower = (sigmoid(0.6) + sigmoid(0.6 + 0.3)) / 2  # and up to -.3
    assert ucb_gap(score, std).gap.item() == pytest.approx(upper - lower)


def test_no_doubt_no_gap_and_more_doubt_more_gap() -> None:
    std = torch.tensor([[0.5, 0.1, 0.2], [0.0, 1.0, 0.3]], dtype=D)
    assert ucb_gap(SCORE, torch.zeros_like(std)).gap.tolist() == pytest.approx([0, 0])
    gaps = torch.stack([ucb_gap(SCORE, std, u=u).gap for u in (0.0, 0.5, 1.0, 2.0)])
    assert (gaps.diff(dim=0) > 0).all() and (gaps[1:] > 0).all()
    moved = ucb_gap(SCORE + 5, std)
    assert torch.allclose(moved.gap, ucb_gap(SCORE, std).gap)
    for score, spread in ((SCORE.clone().requires_grad_(), std), (SCORE, std.clone().requires_grad_())):
        assert not ucb_gap(score, spread).gap.requires_grad
    order = [2, 0, 1]
    assert torch.allclose(ucb_gap(SCORE[:, order], std[:, order]).gap, moved.gap)


def test_information_by_hand() -> None:
    gram = torch.tensor([[2.0, 0.0], [0.0, 4.0]], dtype=D)
    d = torch.tensor([[2.0, 2.0], [1.0, 0.0]])
    assert elliptical(d, gram).tolist() == pytest.approx([3.0, 0.5])
    skewed = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=D)
    assert elliptical(d, skewed).tolist() == pytest.approx([8 / 3, 2 / 3])
    assert torch.equal(start_gram(2), torch.eye(2, dtype=D)) and start_gram(3, ridge=0.5)[1, 1] == 0.5


def test_information_never_grows() -> None:
    gen = torch.Generator().manual_seed(0)
    d = torch.randn(30, 4, dtype=D, generator=gen)
    gram = start_gram(4)
    for row in d[:10]:
        wider = gram + torch.outer(row, row)
        assert (elliptical(d, wider) <= elliptical(d, gram) + 1e-12).all()
        gram = wider
    assert not elliptical(d.requires_grad_(), gram).requires_grad and not cover(d, n=2, gram=gram)[1].requires_grad
    d = d.detach()
    ridge = start_gram(4, ridge=1e6)
    assert torch.allclose(elliptical(d, ridge) * 1e6, (d**2).sum(1))


def test_cover_takes_the_most_informative_left() -> None:
    d = torch.tensor([[3.0, 0.0], [0.0, 2.0], [2.9, 0.0], [0.0, 1.0]], dtype=D)
    index, gram = cover(d, n=3, gram=start_gram(2))
    assert index.tolist() == [0, 1, 2]  # 9 > 4, then 4 > .84, then .84 > .2
    assert torch.allclose(gram, torch.tensor([[1 + 9 + 8.41, 0], [0, 5.0]], dtype=D))
    again, _ = cover(d, n=1, gram=gram)
    assert again.item() == 1  # 4 / 5 against 9 / 18.41
    same, _ = cover(torch.ones(3, 2), n=3, gram=start_gram(2))
    assert sorted(same.tolist()) == [0, 1, 2]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="A >= 2"):
        ucb_gap(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="A >= 2"):
        ucb_gap(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="one shape"):
        ucb_gap(torch.zeros(2, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="floating"):
        ucb_gap(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="u must"):
        ucb_gap(torch.zeros(2, 3), torch.zeros(2, 3), u=-1)
    with pytest.raises(ValueError, match="ridge"):
        start_gram(2, ridge=0)
    with pytest.raises(ValueError, match="gram"):
        elliptical(torch.zeros(3, 2), torch.eye(3))
    with pytest.raises(ValueError, match="gram"):
        elliptical(torch.zeros(2), torch.eye(2))
    for n in (0, 4):
        with pytest.raises(ValueError, match="1..N = 3"):
            cover(torch.zeros(3, 2), n=n, gram=start_gram(2))
