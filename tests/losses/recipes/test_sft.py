"""Fine-tuning losses are TRL's."""

from __future__ import annotations

import pytest
import torch

from diffalign.losses import recipes
from tests.losses.released import MASK_W, TOKENS_W


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("sft", [0.5, 1.0, 0.2, 0.8]), ("dft", [0.30326533, 0.36787944, 0.16374615, 0.35946317])],
    ids=["sft", "dft"],
)
def test_released_values(name: str, tokens: list[float]) -> None:
    """TRL 1.16.0 trl/trainer/sft_trainer.py, per token; reduced over all tokens of the batch."""
    method = recipes.get(name)
    out = method(torch.where(MASK_W.bool(), TOKENS_W, torch.nan), mask=MASK_W)
    assert out[0].tolist() == pytest.approx(tokens, abs=1e-8) and (out[MASK_W == 0] == 0).all()
    assert method.reduce is not None
    assert method.reduce(out, MASK_W).item() == pytest.approx(out.sum().item() / MASK_W.sum().item())


def test_dft_weighs_the_gradient_of_each_token_by_its_probability() -> None:
    x = TOKENS_W.clone().requires_grad_()
    (grad,) = torch.autograd.grad(recipes.get("dft")(x).sum(), x)
    assert torch.allclose(grad, -TOKENS_W.exp())
    assert (torch.autograd.grad(recipes.get("sft")(x).sum(), x)[0] == -1).all()
