from __future__ import annotations

import math

import pytest
import torch

from diffalign.losses import distillation
from diffalign.losses.diffusion import gaussian_kl, latent_sum

D = torch.float64
P = torch.tensor([[0.5, 0.25, 0.25]], dtype=D)
Q = torch.tensor([[0.2, 0.2, 0.6]], dtype=D)
KINDS = [distillation.forward, distillation.reverse, distillation.cross_entropy, distillation.jsd, distillation.mse]
DIVERGENCES = [distillation.forward, distillation.reverse, distillation.jsd, distillation.mse]
FORWARD = 0.2 * math.log(0.2 / 0.5) + 0.2 * math.log(0.2 / 0.25) + 0.6 * math.log(0.6 / 0.25)
REVERSE = 0.5 * math.log(0.5 / 0.2) + 0.25 * math.log(0.25 / 0.2) + 0.25 * math.log(0.25 / 0.6)


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def test_values_by_hand() -> None:
    assert distillation.forward(P.log() + 3, Q.log()).item() == pytest.approx(FORWARD)
    assert distillation.reverse(P.log(), Q.log() - 2).item() == pytest.approx(REVERSE)
    entropy = -(0.4 * math.log(0.2) + 0.6 * math.log(0.6))
    assert distillation.cross_entropy(P.log(), Q.log()).item() == pytest.approx(FORWARD + entropy)
    m = [0.75 * p + 0.25 * q for p, q in zip(P[0].tolist(), Q[0].tolist(), strict=True)]
    to_t = sum(q * math.log(q / n) for q, n in zip(Q[0].tolist(), m, strict=True))
    to_s = sum(p * math.log(p / n) for p, n in zip(P[0].tolist(), m, strict=True))
    assert distillation.jsd(P.log(), Q.log(), beta=0.25).item() == pytest.approx(0.25 * to_t + 0.75 * to_s)
    assert distillation.mse(P, Q).item() == pytest.approx((0.09 + 0.0025 + 0.1225) / 3)


def test_the_ends_of_jsd_are_set_and_not_limits() -> None:
    assert distillation.jsd(P.log(), Q.log(), beta=0).item() == pytest.approx(FORWARD)
    assert distillation.jsd(P.log(), Q.log(), beta=1).item() == pytest.approx(REVERSE)
    near = distillation.jsd(P.log(), Q.log(), beta=1e-6).item()
    assert near < 1e-5 and near / 1e-6 == pytest.approx(FORWARD, rel=1e-4)
    assert distillation.jsd(P.log(), Q.log(), beta=1 - 1e-6).item() / 1e-6 == pytest.approx(REVERSE, rel=1e-4)
    default = distillation.jsd(P.log(), Q.log()).item()
    assert default == pytest.approx(distillation.jsd(Q.log(), P.log()).item()) and default < math.log(2)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_equal_distributions_have_no_distance_and_no_pull(kind) -> None:
    x = logits(2, 3, 5).requires_grad_()
    loss = kind(x, x.detach())
    assert torch.allclose(loss, torch.zeros(2, 3, dtype=D), atol=1e-12)
    assert torch.allclose(torch.autograd.grad(loss.sum(), x)[0], torch.zeros(2, 3, 5, dtype=D), atol=1e-12)
    assert (kind(x, logits(2, 3, 5, seed=1)) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_student_learns(kind) -> None:
    student, teacher = logits(2, 4).requires_grad_(), logits(2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: kind(s, teacher.detach()), student)
    assert torch.autograd.grad(kind(student, teacher).sum(), teacher, allow_unused=True)[0] is None


def test_forward_has_the_gradient_of_cross_entropy() -> None:
    student, teacher = logits(3, 4).requires_grad_(), logits(3, 4, seed=1)
    for loss in (distillation.forward, distillation.cross_entropy):
        (g,) = torch.autograd.grad(loss(student, teacher).sum(), student)
        assert torch.allclose(g, student.detach().softmax(1) - teacher.softmax(1), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_positions_leave_no_trace(kind) -> None:
    student, teacher, mask = logits(2, 3, 4), logits(2, 3, 4, seed=1), torch.tensor([[1, 0, 1], [0, 0, 0]])
    bad = torch.where(mask.bool()[..., None], student, math.nan).requires_grad_()
    out = kind(bad, torch.where(mask.bool()[..., None], teacher, math.inf), mask=mask)
    (g,) = torch.autograd.grad(out.sum(), bad)
    assert (out[mask == 0] == 0).all() and (g[mask == 0] == 0).all() and torch.isfinite(g).all()
    assert torch.allclose(out[mask == 1], kind(student, teacher)[mask == 1], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_impossible_outcomes_count_nothing(kind) -> None:
    student, teacher = logits(2, 4), logits(2, 4, seed=1)
    pad = torch.full((2, 2), -math.inf, dtype=D)
    wide = torch.cat([student, pad], 1).requires_grad_()
    out = kind(wide, torch.cat([teacher, pad], 1))
    (g,) = torch.autograd.grad(out.sum(), wide)
    assert torch.allclose(out, kind(student, teacher), atol=1e-12)
    assert (g[:, 4:] == 0).all() and torch.isfinite(g).all()


@pytest.mark.parametrize("kind", KINDS)
def test_far_out_in_half_precision(kind) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    out = kind(student, torch.tensor([[-50.0, 50.0, 0.0]], dtype=torch.bfloat16))
    assert out.dtype == torch.float32 and torch.isfinite(out).all()
    assert torch.isfinite(torch.autograd.grad(out.sum(), student)[0]).all()


def test_mse_is_the_kl_of_gaussian_steps() -> None:
    s, t = logits(3, 8), logits(3, 8, seed=1)
    kl = gaussian_kl(s, t, 0.3, reduce=latent_sum)
    assert torch.allclose(8 / (2 * 0.3**2) * distillation.mse(s, t), kl, atol=1e-9)


def test_one_dimension_is_enough() -> None:
    x, mask = torch.tensor([[2.0], [3.0]], dtype=D), torch.tensor([1, 0])
    assert distillation.mse(x, torch.zeros(2, 1, dtype=D), mask=mask).tolist() == [4, 0]
    assert distillation.forward(x, -x, mask=mask).tolist() == [0, 0]


def test_outcomes_may_be_permuted() -> None:
    s, t, order = logits(2, 4), logits(2, 4, seed=1), [3, 1, 0, 2]
    for kind in KINDS:
        assert torch.allclose(kind(s, t), kind(s[:, order], t[:, order]), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_refused(kind) -> None:
    with pytest.raises(ValueError, match="one shape"):
        kind(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="floating"):
        kind(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="scalars"):
        kind(torch.tensor(0.0), torch.tensor(0.0))
    with pytest.raises(ValueError, match="mask"):
        kind(torch.zeros(2, 3), torch.zeros(2, 3), mask=torch.ones(3))
    with pytest.raises(ValueError, match="beta"):
        distillation.jsd(torch.zeros(2, 3), torch.zeros(2, 3), beta=1.1)
