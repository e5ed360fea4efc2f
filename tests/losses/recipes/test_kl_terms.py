"""KL terms have the value and the gradient of verl's and TRL's code."""

from __future__ import annotations

import pytest
import torch

from diffalign.losses import masked_seq_mean, policy, recipes
from tests.losses.released import ADV, MASK, OLD, X, f64, policy_gradient

K1, K2 = [0.25, -0.35, 0.05, 0.6], [0.03125, 0.06125, 0.00125, 0.18]
K3 = [0.02880078, 0.06906755, 0.00122942, 0.14881164]
# name: value, gradient on the first row; verl 0.9.1 core_algos.py kl_penalty
RELEASED = {
    "k1": (K1, [1, 1, 1, 1]),
    "k2": (K2, K1),
    "k3": (K3, [0.22119922, -0.41906755, 0.04877058, 0.45118836]),
    "kl-abs": ([0.25, 0.35, 0.05, 0.6], [1, -1, 1, 1]),
    "k1+": (K1, K1),
    "k3+": (K3, K1),
}
REF = OLD + f64([0.1, -0.2, 0.0, 0.3], [0.2, 0.1, -0.1, 0.0], [-0.3, 0.2, 0.1, 0.1])
CORRECTED = [
    0.0048151, -0.07311139, -0.10381302, 0.01366589, 0.05690236, 0.11398808, -0.007439, 0, 0.05221386, -0.07389506,
    0, 0,
]  # fmt: skip


@pytest.mark.parametrize("name", [*RELEASED, "bias-corrected-kl"])
def test_released_values(name: str) -> None:
    """bias-corrected-kl: GRPO's loss plus .3 times the term, TRL 1.16.0 grpo_trainer.py."""
    if name == "bias-corrected-kl":
        clip = lambda x: policy.clip(x, ADV, eps_low=0.2, eps_high=0.28)  # noqa: E731
        term = recipes.get(name)
        found = policy_gradient(lambda x: masked_seq_mean(clip(x) + 0.3 * term(OLD + x - REF, x), MASK))
        assert found[0] == pytest.approx(-0.31944104, abs=1e-8) and found[1] == pytest.approx(CORRECTED, abs=1e-8)
        return
    value, gradient = RELEASED[name]
    r = X[0].clone().requires_grad_()
    out = recipes.get(name)(r)
    assert out.tolist() == pytest.approx(value, abs=1e-8)
    assert torch.autograd.grad(out.sum(), r)[0].tolist() == pytest.approx(gradient, abs=1e-8)


def test_the_corrected_term_is_k3_at_the_rollout_policy_with_the_gradient_of_the_reverse_kl() -> None:
    """Over all outcomes of a categorical policy: sum_y p_old (y) of the term's gradient is that of KL(p || ref)."""
    logits = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64, requires_grad=True)
    old, ref = torch.tensor([[0.1, 0.2, 0.3], [1.0, -0.5, 0.4]], dtype=torch.float64).log_softmax(-1)
    logp = logits.log_softmax(-1)
    term = recipes.get("bias-corrected-kl")(logp - ref, logp - old)
    (ours,) = torch.autograd.grad((old.exp() * term).sum(), logits, retain_graph=True)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits)
    assert torch.allclose(ours, exact, atol=1e-12)
    with pytest.raises(ValueError, match="log_ratio_old"):
        recipes.get("bias-corrected-kl")(torch.zeros(2), torch.zeros(3))
