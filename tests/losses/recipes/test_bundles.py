from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffalign.losses import recipes

F64 = torch.float64
NAN = float("nan")


def f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=F64)


U = f64([[1.0, 2.0], [4.0, 9.0]])
D = f64([0.2, 0.8])
C = f64([[0.1, 0.3], [0.7, 0.2]])


def test_sgrpo_supergroup() -> None:
    sgrpo = recipes.get("sgrpo-supergroup")
    assert dict(sgrpo.defaults) == {"weight": 0.9, "temperature": 1.0}
    z = [0.1 / (0.1 * math.sqrt(2) + 1e-4), 0.25 / (0.25 * math.sqrt(2) + 1e-4)]
    up = [2 / (1 + math.exp(-2 * v)) for v in z]
    # set 0 is the less diverse by .6: the sample of less credit bears more; set 1 gains, by credit
    d = [0.2 - 0.6 * (up[0] - 1), 0.2 + 0.6 * (up[0] - 1), 0.8 + 0.6 * (up[1] - 1), 0.8 - 0.6 * (up[1] - 1)]
    r = [0.1 * u + 0.9 * v for u, v in zip([1.0, 2.0, 4.0, 9.0], d, strict=True)]
    want = [v - (sum(r) - v) / 3 for v in r]
    assert sgrpo(U, D, C).flatten().tolist() == pytest.approx(want)
    plain = sgrpo(U, D, None, weight=0.5)
    r = [0.6, 1.1, 2.4, 4.9]
    assert plain.flatten().tolist() == pytest.approx([v - (sum(r) - v) / 3 for v in r])
    gated = sgrpo(U, D, None, weight=1.0, threshold=1.5)  # the first set's mean utility is 1.5: closed
    assert gated.flatten().tolist() == pytest.approx([-1.6 / 3] * 2 + [0.8 - 0.8 / 3] * 2)
    assert not torch.allclose(sgrpo(U, D, C, temperature=2.0), sgrpo(U, D, C))


def test_riskpo() -> None:
    riskpo = recipes.get("riskpo")
    assert dict(riskpo.defaults) == {"a_lo": 0.2, "a_hi": 0.8, "omega": 1.5, "natural_baseline": True}
    rewards = f64([[0.0, 1.0, 1.0], [0.0, 0.0, 2.0]])  # scores 0 1 3
    low, high = torch.tensor(1.0, dtype=F64), torch.tensor(2.0, dtype=F64)
    new, adv = riskpo(rewards, (low, high))
    bundle = [(1.5 * -1 / 0.2 - 1 / 0.6) / 2.5, (-1 / 0.6) / 2.5, 0.0]
    # merits of the first prompt -2/3 1/3 1/3, of the second -2/3 -2/3 4/3
    assert adv[0, 0].tolist() == pytest.approx([bundle[0] / 2, -bundle[1], 0.0])
    assert adv[0, 1].tolist() == pytest.approx([bundle[0] / 2, 2 * bundle[1], 0.0])
    assert [q.item() for q in new] == pytest.approx([1 + 0.1 * (0.2 - 1 / 3), 2 + 0.1 * (0.8 - 2 / 3)])
    bare = riskpo(rewards, (low, high), natural_baseline=False)[1].sum(1)[0].tolist()
    assert bare == pytest.approx([1.5 * -5 / 2.5, 0.0, 1 / 0.6 / 2.5])
    none = riskpo(rewards, (low, high), omega=0.0)[1].sum(1)[0].tolist()
    assert none == pytest.approx([-1 / 0.6, -1 / 0.6, 0.0])


def test_riskpo_starts_from_its_first_batch() -> None:
    riskpo = recipes.get("riskpo")
    rewards = f64([[0.0, 1.0, 3.0, 4.0, 7.0]])
    new, adv = riskpo(rewards, None, a_lo=0.25, a_hi=0.75)
    assert [q.item() for q in new] == [1.0, 4.0]
    assert adv[0, 0].tolist() == pytest.approx([(1.5 * -4 - 6) / 2.5, -6 / 2.5, -2 / 2.5, 0.0, 0.0])
    assert not riskpo(rewards.requires_grad_(), None)[1].requires_grad
