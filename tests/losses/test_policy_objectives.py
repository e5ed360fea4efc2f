"""The registry of objectives knows every one of them, and refuses what is not of their shape."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from diffalign.losses import policy, policy_objectives
from diffalign.losses.policy_objectives import bounded_ratio, extra_inputs, objective_inputs, policy_objective

F64 = torch.float64


def given(name: str, x: Tensor) -> dict[str, object]:
    known = {
        "logp": x.detach() - 1, "kl": torch.zeros_like(x), "goal": torch.ones_like(x), "gap": torch.zeros_like(x),
        "generator": torch.Generator(),
    }  # fmt: skip
    return {key: known[key] for key in extra_inputs(policy_objectives()[name])}


def test_it_lists_the_objectives_by_name() -> None:
    found = policy_objectives()
    assert found["clip"] is policy.clip and list(found) == sorted(found)
    assert {"reinforce", "ratio", "clip", "dual_clip", "kl_mask", "cispo", "sapo", "vespo", "gspo", "gmpo"} <= set(
        found
    )


@pytest.mark.parametrize("name", policy_objectives())
def test_all_have_one_shape_and_lower_the_loss_of_good_samples(name: str) -> None:
    objective = policy_objectives()[name]
    assert list(inspect.signature(objective).parameters)[:2] == ["log_ratio", "adv"]
    x = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    out = objective(x, torch.tensor([1.0, -1.0], dtype=F64), mask=mask, **given(name, x))
    assert out.shape == x.shape and out[0, 2] == 0
    (grad,) = torch.autograd.grad(out.sum(), x)
    if name == "target":  # whose goal is the ratio itself
        return
    assert (grad[0, :2] < 0).all() and grad[0, 2] == 0
    assert (grad[1] < 0).all() if name in ("awr",) else (grad[1] > 0).all()


def test_what_else_an_objective_needs() -> None:
    found = policy_objectives()
    assert extra_inputs(found["clip"]) == [] and extra_inputs(found["kl_mask"]) == ["kl"]
    assert extra_inputs(found["clip_cov"]) == ["logp", "generator"]


def test_a_function_of_another_shape_is_refused() -> None:
    def unmasked(log_ratio: Tensor, adv: Tensor, *, eps: float = 0.2) -> Tensor:
        return log_ratio

    def three(log_ratio: Tensor, adv: Tensor, kl: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return log_ratio

    def clip(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return log_ratio

    for function in (unmasked, three):
        with pytest.raises(ValueError, match=r"\(log_ratio, adv, \*, mask, ...\)"):
            policy_objective(function)
    with pytest.raises(ValueError, match="two policy objectives are named 'clip'"):
        policy_objective(clip)
    assert policy_objectives()["clip"] is policy.clip


def test_a_new_objective_is_found_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffalign.losses.policy_objectives import _objectives

    def brand_new(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return log_ratio

    monkeypatch.setitem(_objectives, "clip", policy.clip)
    assert policy_objective(brand_new) is brand_new and policy_objectives()["brand_new"] is brand_new
    del _objectives["brand_new"]


def test_inputs_and_ratios() -> None:
    x, adv = objective_inputs(torch.zeros(2, 3).half(), torch.ones(2, requires_grad=True), None)
    assert x.dtype == torch.float32 and adv.shape == (2, 3) and not adv.requires_grad
    with pytest.raises(ValueError, match="log_ratio"):
        objective_inputs(torch.zeros(2, dtype=torch.long), torch.ones(2), None)
    far = bounded_ratio(torch.tensor([1e4, -1e4], dtype=F64)).log()
    assert far.tolist() == pytest.approx([20.0, -20.0])
    assert bounded_ratio(torch.tensor([9.0]), 1.0).log().item() == pytest.approx(1.0)
