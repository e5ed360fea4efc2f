from __future__ import annotations

import pytest
import torch

from diffalign.losses import policy
from diffalign.losses import policy_covariance as P

F64 = torch.float64
X = torch.tensor([[0.05, -0.1, 0.02, 0.1], [0.0, 0.15, -0.05, 9.0]], dtype=F64)
LOGP = torch.tensor([[-0.1, -2.0, -0.5, -3.0], [-1.0, -4.0, -0.2, 5.0]], dtype=F64)
ADV = torch.tensor([2.0, -1.0], dtype=F64)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def covariance() -> torch.Tensor:
    valid = MASK.bool()
    adv = ADV[:, None].expand(2, 4)
    cov = (adv - adv[valid].mean()) * (LOGP - LOGP[valid].mean())
    return torch.where(valid, cov, -torch.inf)


def clip_cov(seed: int = 0, **settings: object) -> torch.Tensor:
    made = {"generator": torch.Generator().manual_seed(seed), "low": 0.5, **settings}
    return P.clip_cov(X, ADV, logp=LOGP, mask=MASK, **made)


def test_clip_cov_drops_tokens_between_its_bounds_only() -> None:
    plain, cov = policy.clip(X, ADV, mask=MASK), covariance()
    everything = clip_cov(share=1.0)
    dropped = (cov > 0.5) & (cov < 5.0)
    assert 1 < dropped.sum() < 7
    assert torch.equal(everything == 0, dropped | ~MASK.bool())
    assert torch.equal(everything[~dropped], plain[~dropped])
    narrow = clip_cov(share=1.0, high=1.5)
    assert torch.equal(narrow == 0, ((cov > 0.5) & (cov < 1.5)) | ~MASK.bool())


def test_clip_cov_draws_its_share_and_at_least_one() -> None:
    counts = [(clip_cov(seed, share=share) == 0).sum().item() - 1 for seed in range(4) for share in (1e-6, 0.3)]
    assert counts == [1, 2] * 4
    first = [tuple((clip_cov(seed, share=1e-6) == 0).flatten().nonzero()[:, 0].tolist()) for seed in range(8)]
    assert len(set(first)) > 1


def test_clip_cov_leaves_clipped_tokens_alone() -> None:
    x = X.clone()
    x[0, 0] = 1.0  # beyond the range, A > 0
    loss = P.clip_cov(x, ADV, logp=LOGP, generator=torch.Generator(), share=1.0, low=0.5, mask=MASK)
    assert loss[0, 0].item() == pytest.approx(-2 * 1.2) and covariance()[0, 0] > 0.5


def test_kl_cov_charges_the_top_tokens_for_leaving() -> None:
    plain = policy.ratio(X, ADV, mask=MASK)
    top = covariance().flatten().topk(2).indices
    found = P.kl_cov(X, ADV, logp=LOGP, share=2 / 7, kl_coef=0.5, mask=MASK)
    extra = (found - plain).flatten()
    assert torch.allclose(extra[top], 0.5 * X.flatten()[top].abs())
    extra[top] = 0
    assert (extra == 0).all()
    one = P.kl_cov(X, ADV, logp=LOGP, share=1e-6, mask=MASK) - plain
    assert (one != 0).sum() == 1 and one.flatten()[top[0]].item() == pytest.approx(X.flatten()[top[0]].abs().item())
    full = P.kl_cov(X[:, :3], ADV, logp=LOGP[:, :3], share=1.0)
    assert torch.allclose(full, policy.ratio(X[:, :3], ADV) + X[:, :3].abs())


@pytest.mark.parametrize("loss", [P.clip_cov, P.kl_cov])
def test_log_probs_carry_no_gradient_and_settings_are_checked(loss) -> None:
    more = {"generator": torch.Generator()} if loss is P.clip_cov else {}
    x, logp = X.clone().requires_grad_(), LOGP.clone().requires_grad_()
    out = loss(x, ADV, logp=logp, mask=MASK, **more)
    grads = torch.autograd.grad(out.sum(), (x, logp), allow_unused=True)
    assert grads[0][0, 1] != 0 and grads[1] is None and out[1, 3] == 0
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="share"):
            loss(X, ADV, logp=LOGP, share=share, **more)
    with pytest.raises(ValueError, match="logp"):
        loss(X, ADV, logp=LOGP[:1], **more)
    with pytest.raises(ValueError, match="kl_coef"):
        P.kl_cov(X, ADV, logp=LOGP, kl_coef=-1.0)


def test_defaults() -> None:
    assert P.clip_cov.__kwdefaults__ == {
        "share": 2e-4, "low": 1.0, "high": 5.0, "eps_low": 0.2, "eps_high": None, "mask": None,
    }  # fmt: skip
    assert P.kl_cov.__kwdefaults__ == {"share": 2e-4, "kl_coef": 1.0, "mask": None}


def test_clip_cov_without_a_mask_counts_all_tokens() -> None:
    loss = P.clip_cov(X, ADV, logp=LOGP, generator=torch.Generator(), share=0.5, low=-99.0, high=99.0)
    assert (loss == 0).sum() == 4
