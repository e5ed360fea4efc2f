from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

D = torch.float64


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def picked(mask: torch.Tensor) -> list[int]:
    return mask.nonzero()[:, 0].tolist()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_mixed_po() -> None:
    margins = t(0.5, -2.0, 2.0, 2.5, 0.0)
    assert picked(recipes.get("mixed-po")(margins, threshold=2.0)) == [3]
    assert picked(recipes.get("mixed-po")(margins, threshold=1.9)) == [1, 2, 3]


def test_magicid() -> None:
    points = t([1.0, 1.0], [3.0, 0.0], [0.0, 3.0], [0.5, 0.5])  # 0, 1, 2 in front, 3 behind
    identity = t(0.5, 0.9, 0.1, 0.2)
    assert recipes.get("magicid")(points, identity).tolist() == [[1, 3], [0, 3], [2, 3]]
    assert recipes.get("magicid")(points, identity, keep=1).tolist() == [[1, 3]]
    line = torch.arange(20.0)[:, None]
    assert recipes.get("magicid")(line, line[:, 0]).shape == (100, 2)  # of 190 pairs
    assert recipes.get("magicid")(line, line[:, 0])[0].tolist() == [19, 0]
    for keep in (0, -1):
        with pytest.raises(ValueError, match="keep"):
            recipes.get("magicid")(points, identity, keep=keep)
    with pytest.raises(ValueError, match="identity"):
        recipes.get("magicid")(points, identity[:3])


def test_regime() -> None:
    first = t([4.0, 1.0], [1.0, 2.0], [1.0, 1.0], [3.5, 1.0])
    second = torch.ones(4, 2, dtype=D)  # differences (3, 0), (0, 1), 0, (2.5, 0)
    assert recipes.get("regime")(first, second, n=3).tolist() == [0, 1, 3]
    assert recipes.get("regime")(first, t([4.0, 1.0], [0.0, 0.0], [0.0, 0.0], [3.5, 0.0]), n=1).tolist() == [1]
    assert recipes.get("regime")(first, second, n=3, ridge=100.0).tolist() == [0, 3, 1]  # towards plain distances


def test_dueling_rl() -> None:
    first, second = t([4.0, 1.0], [1.0, 3.0], [1.0, 2.0]), torch.ones(3, 2, dtype=D)
    gram = torch.diag(t(9.0, 2.0))  # information 1, 2, .5
    everything = torch.ones(3, dtype=torch.bool)
    assert recipes.get("dueling-rl")(first, second, everything, gram=gram).item() == 1
    assert recipes.get("dueling-rl")(first, second, everything, gram=torch.eye(2, dtype=D)).item() == 0
    assert recipes.get("dueling-rl")(first, second, torch.tensor([1, 0, 1]), gram=gram).item() == 0
    with pytest.raises(ValueError, match="near-optimal"):
        recipes.get("dueling-rl")(first, second, ~everything, gram=gram)


def test_ae_borda() -> None:
    quiet, loud = t([0.0, 3.0], [0.0, 3.0]), t([-4.0, 3.0], [4.0, 3.0])  # two passes, two candidates
    passes = torch.stack([quiet, loud], 1)
    reference = torch.zeros(2, 2, dtype=D)
    assert picked(recipes.get("ae-borda")(passes, reference, keep=1)) == [1]
    assert picked(recipes.get("ae-borda")(passes.flip(1), reference, keep=1)) == [0]
    assert picked(recipes.get("ae-borda")(passes, reference, keep=2)) == [0, 1]
    with pytest.raises(ValueError, match="S >= 2"):
        recipes.get("ae-borda")(passes[:1], reference, keep=1)
    with pytest.raises(ValueError, match="S >= 2"):
        recipes.get("ae-borda")(passes, reference[:1], keep=1)
    with pytest.raises(ValueError, match="beta"):
        recipes.get("ae-borda")(passes, reference, keep=1, beta=0.0)


def test_ae_borda_weighs_doubt_by_beta_and_u() -> None:
    """Prompt 0: far apart but loud. Prompt 1: close and less loud. A large beta saturates the first."""
    mean = t([0.0, 30.0], [0.0, 1.0])
    spread = t([3.0, 3.0], [2.0, 2.0])
    passes = torch.stack([mean - spread, mean, mean + spread])  # unbiased std = spread
    reference = torch.zeros(2, 2, dtype=D)
    call = recipes.get("ae-borda")

    def gap(score: float, std: float, beta: float, u: float) -> float:
        return sigmoid(beta * (score + 2 * u * std)) - sigmoid(beta * (score - 2 * u * std))

    for beta, u in ((0.1, 2.0), (0.01, 2.0), (0.01, 20.0)):
        better = 0 if gap(30, 3, beta, u) > gap(1, 2, beta, u) else 1
        assert picked(call(passes, reference, keep=1, beta=beta, u=u)) == [better]
    assert picked(call(passes, reference, keep=1)) == [1] and picked(call(passes, reference, keep=1, beta=0.01)) == [0]
    assert picked(call(passes, reference + 1, keep=1)) == [1]
    assert picked(call(passes, mean, keep=1)) == [0]  # at the reference both are close: louder wins


def test_published_settings() -> None:
    assert dict(recipes.get("ae-borda").defaults) == {"beta": 0.1, "u": 2.0}
    assert dict(recipes.get("magicid").defaults) == {"keep": 100}


def test_small_margin_pairs() -> None:
    r_1, r_2 = t(1.0, 5.0, 2.0), t(3.0, 4.5, 2.8)  # margins -2, .5, -.8
    assert picked(recipes.get("small-margin-pairs")(r_1, r_2, keep=1)) == [1]
    assert picked(recipes.get("small-margin-pairs")(r_1, r_2, keep=2)) == [1, 2]


def test_skywork_reward_v2() -> None:
    out = recipes.get("skywork-reward-v2")(t(1.0, -1.0, 1.0, 0.0), t(0.5, -2.0, -1.0, 1.0))
    assert out.keep.tolist() == [True, True, False, False] and out.label.tolist()[:2] == [1, 0]


def test_crm_collaborative() -> None:
    a, b = t(0.1, 0.9, 0.5, 0.7), t(0.8, 0.2, 0.6, 0.1)
    for_a, for_b = recipes.get("crm-collaborative")(a, b, share=0.5)
    assert picked(for_a) == [1, 3] and picked(for_b) == [0, 2]
    assert picked(recipes.get("crm-collaborative")(a, b, share=0.51)[0]) == [1, 2, 3]
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="share"):
            recipes.get("crm-collaborative")(a, b, share=share)


def test_self_ref_feedback() -> None:
    out = recipes.get("self-ref-feedback")(t(2.0, 1.0, -3.0).requires_grad_(), t(1.0, -1.0, -1.0))
    assert out.keep.tolist() == [True, False, True] and not out.label.requires_grad
    assert out.label.tolist() == pytest.approx([sigmoid(1.5), 0.5, sigmoid(-2)])
