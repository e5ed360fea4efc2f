from __future__ import annotations

import pytest
import torch

from diffalign.losses.gae import gae, last_value

F64 = torch.float64
R = torch.tensor([[1.0, 0.5, 2.0]], dtype=F64)
V = torch.tensor([[0.2, 0.7, 1.1]], dtype=F64)
NAN = float("nan")


def test_by_hand() -> None:
    d = [1.0 + 0.9 * 0.7 - 0.2, 0.5 + 0.9 * 1.1 - 0.7, 2.0 - 1.1]
    a1 = d[1] + 0.72 * d[2]
    out = gae(R, V, gamma=0.9, lam=0.8)
    assert out.advantages[0].tolist() == pytest.approx([d[0] + 0.72 * a1, a1, d[2]])
    assert out.returns[0].tolist() == pytest.approx([d[0] + 0.72 * a1 + 0.2, a1 + 0.7, 2.0])
    plain = gae(R, V).advantages[0].tolist()
    steps = [1.5, 0.9, 0.9]
    assert plain == pytest.approx([steps[0] + 0.95 * (steps[1] + 0.95 * 0.9), 0.9 + 0.95 * 0.9, 0.9])


def test_limits_of_lambda() -> None:
    whole = gae(R, V, gamma=0.9, lam=1.0)
    assert whole.returns[0].tolist() == pytest.approx([1 + 0.45 + 1.62, 0.5 + 1.8, 2.0])
    step = gae(R, V, gamma=0.9, lam=0.0).advantages[0].tolist()
    assert step == pytest.approx([1.43, 0.79, 0.9])


def test_true_values_leave_nothing() -> None:
    value = R.flip(1).cumsum(1).flip(1)
    assert torch.allclose(gae(R, value).advantages, torch.zeros_like(R), atol=1e-12)


def test_bootstrap_stands_after_the_last_step() -> None:
    out = gae(R, V, gamma=0.9, lam=0.8, bootstrap=torch.tensor([3.0], dtype=F64))
    longer = gae(
        torch.cat([R, torch.zeros(1, 1)], 1), torch.cat([V, torch.tensor([[3.0]])], 1), gamma=0.9, lam=0.8,
        bootstrap=torch.tensor([3.0 / 0.9], dtype=F64),
    )  # fmt: skip
    assert torch.allclose(out.advantages, longer.advantages[:, :3], atol=1e-12)
    assert out.advantages[0, 2].item() == pytest.approx(2.0 + 2.7 - 1.1)


def test_own_last_value_makes_the_last_error_the_reward() -> None:
    own = last_value(V)
    assert own.tolist() == [1.1]
    assert gae(R, V, bootstrap=own).advantages[0, 2].item() == pytest.approx(2.0)
    assert gae(R, V, gamma=0.9, bootstrap=own).advantages[0, 2].item() == pytest.approx(2.0 - 0.11)


def test_a_single_step() -> None:
    out = gae(R[:, :1], V[:, :1], bootstrap=last_value(V[:, :1]))
    assert out.advantages.tolist() == [[1.0]] and out.returns.tolist() == [[1.2]]
    assert gae(R[:, :1], V[:, :1]).advantages.tolist() == [[0.8]]


def test_masked_steps_are_passed_over() -> None:
    r = torch.tensor([[1.0, NAN, 0.5, 2.0, NAN]], dtype=F64)
    v = torch.tensor([[0.2, NAN, 0.7, 1.1, 9.0]], dtype=F64)
    mask = torch.tensor([[1, 0, 1, 1, 0]])
    boot = torch.tensor([0.6], dtype=F64)
    out, full = gae(r, v, mask=mask, gamma=0.9, lam=0.8, bootstrap=boot), gae(R, V, gamma=0.9, lam=0.8, bootstrap=boot)
    assert torch.allclose(out.advantages[:, [0, 2, 3]], full.advantages, atol=1e-12)
    assert torch.allclose(out.returns[:, [0, 2, 3]], full.returns, atol=1e-12)
    assert (out.advantages[:, [1, 4]] == 0).all() and (out.returns[:, [1, 4]] == 0).all()
    assert last_value(v, mask).tolist() == [1.1]
    assert last_value(v, torch.zeros(1, 5)).tolist() == [0.0]
    assert last_value(v, torch.tensor([[1, 0, 0, 0, 0]])).tolist() == [0.2]


def test_result_is_detached_and_wide() -> None:
    r, v = R.clone().requires_grad_(), V.clone().requires_grad_()
    out = gae(r, v, bootstrap=last_value(v) + v[:, 0])
    assert not out.advantages.requires_grad and not out.returns.requires_grad and not last_value(v).requires_grad
    assert gae(R.bfloat16(), V.bfloat16()).returns.dtype == torch.float32
    assert not gae(R, V, bootstrap=v[:, 0]).advantages.requires_grad


def test_bad_input_is_refused() -> None:
    for call, words in [
        (lambda: gae(R, V[:, :2]), "values"),
        (lambda: gae(R[0], V[0]), r"\(B, T\)"),
        (lambda: gae(R[:, :0], V[:, :0]), "at least one step"),
        (lambda: gae(R, V, gamma=1.1), "gamma"),
        (lambda: gae(R, V, lam=-0.1), "lam"),
        (lambda: gae(R, V, mask=torch.ones(1, 2)), "mask"),
        (lambda: gae(R, V, bootstrap=torch.zeros(2)), "bootstrap"),
        (lambda: last_value(V[0]), r"\(B, T\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
