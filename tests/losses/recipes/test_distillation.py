from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import recipes

D = torch.float64
P, Q = [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]


def kl(p: list[float], q: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))


def logits(*rows: list[float]) -> torch.Tensor:
    """One sample of a position for each row of probabilities, ``(1, T, V)``."""
    return torch.tensor([rows], dtype=D).log()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def test_aligndistil() -> None:
    half, tilted = [0.5, 0.5], [0.75, 0.25]
    # |p+ - p-| = .5, weight 5.001; teacher logits ratio log 3 * (1 + 5.001)
    far = math.log(3) * 6.001
    teacher = [1 / (1 + math.exp(-far)), 1 / (1 + math.exp(far))]
    loss = recipes.get("aligndistil")(logits(half), logits(tilted), logits(half))
    assert loss.item() == pytest.approx(kl(half, teacher) * 0.1 / 5.001)
    other = recipes.get("aligndistil")(logits(half), logits(tilted), logits(half), kappa=2.0, beta=0.3)
    near = math.log(3) * 2.001
    assert other.item() == pytest.approx(kl(half, [1 / (1 + math.exp(-near)), 1 / (1 + math.exp(near))]) * 0.3 / 1.001)
    plain = recipes.get("aligndistil")(logits(P), logits(Q), logits(Q))
    assert plain.item() == pytest.approx(kl(P, Q) * 0.1 / 1e-3)  # without a gap: weight 1e-3


def test_aligndistil_holds_its_teachers_and_its_mask() -> None:
    student, plus, minus = (randn(2, 3, 4, seed=s).requires_grad_() for s in range(3))
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    loss = recipes.get("aligndistil")(student, plus, minus, mask=mask)
    grads = torch.autograd.grad(loss.sum(), (student, plus, minus), allow_unused=True)
    assert (grads[0][mask == 0] == 0).all() and grads[0].abs().sum() > 0 and grads[1] is None and grads[2] is None
    assert (loss[mask == 0] == 0).all()


def test_draft_opd() -> None:
    exposed = torch.tensor([[1, 0, 1]])
    out = recipes.get("draft-opd")(logits(P, P, Q), logits(Q, Q, P), exposed)
    assert out[0].tolist() == pytest.approx([kl(P, Q), 0, kl(Q, P)])


def test_video_opd() -> None:
    student, teacher = logits(P, Q).repeat(3, 1, 1), logits(Q, P).repeat(3, 1, 1)
    out = recipes.get("video-opd")(student.requires_grad_(), teacher, torch.tensor([0.4, 0.5, 0.9]), threshold=0.5)
    both = [kl(P, Q), kl(Q, P)]
    assert torch.allclose(out.loss, torch.tensor([[0.0, 0.0], both, both], dtype=D))
    assert out.priority.tolist() == pytest.approx([0, sum(both), sum(both)]) and not out.priority.requires_grad
    part = recipes.get("video-opd")(student, teacher, torch.ones(3), threshold=0.5, mask=torch.tensor([[1, 0]] * 3))
    assert part.priority.tolist() == pytest.approx([both[0]] * 3)
    with pytest.raises(ValueError, match="one reward each"):
        recipes.get("video-opd")(student, teacher, torch.ones(2), threshold=0.5)


def test_keye_mopd() -> None:
    student, teachers = logits(P).repeat(2, 1, 1), torch.stack([logits(Q).repeat(2, 1, 1), logits(P).repeat(2, 1, 1)])
    out = recipes.get("keye-mopd")(student, teachers, torch.tensor([1, 0]))
    assert out[:, 0].tolist() == pytest.approx([0, kl(P, Q)])
    one = recipes.get("keye-mopd")(student, teachers[:1], torch.tensor([0, 0]), mask=torch.tensor([[1], [0]]))
    assert one[:, 0].tolist() == pytest.approx([kl(P, Q), 0])
    for bad in (2, -1):
        with pytest.raises(ValueError, match="0..1"):
            recipes.get("keye-mopd")(student, teachers, torch.tensor([0, bad]))
    with pytest.raises(ValueError, match="0..0"):
        recipes.get("keye-mopd")(student, teachers[:1], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="integer domains"):
        recipes.get("keye-mopd")(student, teachers, torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="integer domains"):
        recipes.get("keye-mopd")(student, teachers, torch.tensor([0]))
    with pytest.raises(ValueError, match="integer domains"):
        recipes.get("keye-mopd")(student[:1], teachers, torch.tensor([0]))


def test_dagger_llm() -> None:
    out = recipes.get("dagger-llm")(logits(P, P), logits(Q, Q), mask=torch.tensor([[1, 0]]))
    assert out[0].tolist() == pytest.approx([-(0.2 * math.log(0.5) + 0.8 * math.log(0.25)) + 0, 0])


def test_distil() -> None:
    student, expert, logp = logits(P, P, P), logits(Q, Q, Q), torch.tensor([[-1.0, -2.0, -3.0]], dtype=D)
    ce = -(0.2 * math.log(0.5) + 0.8 * math.log(0.25))
    out = recipes.get("distil")(student, expert, logp)
    assert out[0].tolist() == pytest.approx([ce - 2 * ce, ce - 2 * ce, ce])  # later costs 2 ce, ce, 0
    cut = recipes.get("distil")(student, expert, logp, mask=torch.tensor([[1, 1, 0]]))
    assert cut[0].tolist() == pytest.approx([ce - ce, ce, 0])


def test_distil_has_the_exact_gradient_of_a_two_step_choice() -> None:
    """Two steps; the first token decides which state follows. Enumerated against the sampled form."""
    first, second = randn(2, seed=1).requires_grad_(), randn(2, 2, seed=2)
    expert = randn(3, 2, seed=3)
    cost = [-(expert[i].softmax(0) * x.log_softmax(0)).sum() for i, x in ((0, first), (1, second[0]), (2, second[1]))]
    pi = first.softmax(0)
    (true,) = torch.autograd.grad(cost[0] + pi[0] * cost[1] + pi[1] * cost[2], first)
    loss = 0
    for a in (0, 1):
        student = torch.stack([first, second[a]])[None]
        logp = torch.stack([first.log_softmax(0)[a], second[a].log_softmax(0)[0]])[None]
        out = recipes.get("distil")(student, torch.stack([expert[0], expert[1 + a]])[None], logp)
        loss = loss + pi[a].detach() * out.sum()
    (ours,) = torch.autograd.grad(loss, first)
    assert torch.allclose(ours, true, atol=1e-12)
