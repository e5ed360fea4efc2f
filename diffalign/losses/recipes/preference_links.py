"""Pair losses of TRL's ``DPOTrainer`` on log-ratios, by ``loss_type``.

``r_w`` and ``r_l`` are summed log-ratios of the chosen and the rejected item to the reference, ``(B,)``; on images
surrogates, with a beta in thousands. All return ``(B,)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffalign.losses import preference, unpaired
from diffalign.losses.common import as_float, check_positive, check_probability
from diffalign.losses.label_noise import soft_label, symmetric_noise
from diffalign.losses.log_ratio import mean_log_ratio
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regression import regression_loss

MAX_EXPONENT = 80.0
"""Bound of DiscoPOP's exponent, beyond which its exponential part has no gradient."""


def _both(loss: Callable[..., Tensor], r_w: Tensor, r_l: Tensor, beta: float) -> Tensor:
    """An unpaired loss of the chosen item as desirable plus that of the rejected one as undesirable."""
    check_positive(beta=beta)
    good = torch.ones_like(r_w, dtype=torch.bool)
    return loss(beta * as_float(r_w), good) + loss(beta * as_float(r_l), ~good)


@recipe("hinge", "pair", aliases=("slic", "slic-hf"), beta=0.1)
def hinge(r_w: Tensor, r_l: Tensor, *, beta: float) -> Tensor:
    """SLiC's hinge on DPO's margin (SLiC-HF, arXiv:2305.10425; with a reference as in RSO, arXiv:2309.06657).

    Formula: relu(1 - beta (r_w - r_l))
    """
    return preference.hinge(pair_margin(r_w, r_l, beta=beta))


@recipe("exo-pair", "pair", aliases=("exo",), beta=0.1, eps=1e-3)
def exo_pair(r_w: Tensor, r_l: Tensor, *, beta: float, eps: float) -> Tensor:
    """EXO on pairs (arXiv:2402.00856, equation 16): the reverse KL from the policy's preference to a smoothed label.

    Formula: p log(p / (1 - eps)) + (1 - p) log((1 - p) / eps), p = sigmoid(beta (r_w - r_l))

    ``eps`` (TRL's ``label_smoothing``) must be in (0, 1); TRL recommends 1e-3. Bounded, unlike DPO.
    """
    check_probability(eps=eps, open_ends=True)
    z = pair_margin(r_w, r_l, beta=beta)
    noise = torch.full_like(z, eps)
    win, lose = -logistic(z), -logistic(-z)
    return win.exp() * (win - (-noise).log1p()) + lose.exp() * (lose - noise.log())


@recipe("nca-pair", "pair", aliases=("nca",), beta=0.1)
def nca_pair(r_w: Tensor, r_l: Tensor, *, beta: float) -> Tensor:
    """Noise contrastive alignment on pairs (arXiv:2402.05369): absolute likelihoods instead of their difference.

    Formula: -log sigmoid(beta r_w) - log sigmoid(-beta r_w) / 2 - log sigmoid(-beta r_l) / 2
    """
    u_w, u_l = pair_margin(r_w, beta=beta), pair_margin(r_l, beta=beta)
    return logistic(u_w) + logistic(-u_w) / 2 + logistic(-u_l) / 2


@recipe("bco-pair", "pair", beta=0.1)
def bco_pair(r_w: Tensor, r_l: Tensor, *, beta: float) -> Tensor:
    """TRL's ``bco_pair``: a binary classifier of chosen and rejected items, without BCO's shift (``bco`` has it).

    Formula: -log sigmoid(beta r_w) - log sigmoid(-beta r_l)
    """
    return _both(unpaired.logistic, r_w, r_l, beta)


@recipe("apo-zero", "pair", beta=0.1)
def apo_zero(r_w: Tensor, r_l: Tensor, *, beta: float) -> Tensor:
    """APO-zero (arXiv:2408.06266, equation 7): raises the chosen item and lowers the rejected one.

    Formula: 1 - sigmoid(beta r_w) + sigmoid(beta r_l)

    For chosen items that are better than the model's own samples.
    """
    return _both(unpaired.kto, r_w, r_l, beta)


@recipe("apo-down", "pair", beta=0.1)
def apo_down(r_w: Tensor, r_l: Tensor, *, beta: float) -> Tensor:
    """APO-down (arXiv:2408.06266, equation 8): lowers both, the rejected item more.

    Formula: sigmoid(beta r_w) + 1 - sigmoid(beta (r_w - r_l))

    For chosen items that are worse than the model's own samples.
    """
    return pair_margin(r_w, beta=beta).sigmoid() + (-pair_margin(r_w, r_l, beta=beta)).sigmoid()


@recipe("sppo-hard", "pair", aliases=("sppo",), beta=1e-3)
def sppo_hard(r_w: Tensor, r_l: Tensor, *, beta: float) -> Tensor:
    """SPPO with hard labels (arXiv:2405.00675, equation 4.7): log-ratios regressed on +-1 / (2 beta).

    Formula: (r_w - 1 / (2 beta))**2 + (r_l + 1 / (2 beta))**2

    beta 1e-3 in the paper, the reference is the current iterate. A square: on surrogates beta must be tuned again.
    """
    check_positive(beta=beta)
    goal = torch.full_like(as_float(r_w), 0.5 / beta)
    return regression_loss(r_w, goal) + regression_loss(r_l, -goal)


@recipe("aot", "pair", beta=0.1)
def aot(logp_w: Tensor, logp_l: Tensor, ref_w: Tensor, ref_l: Tensor, *, beta: float, flip: float = 0.0) -> Tensor:
    """AOT (arXiv:2406.05882): DPO between sorted margins of policy and reference, so that the policy's margins
    stochastically dominate the reference's.

    Formula: -log sigmoid(beta (sort(logp_w - logp_l) - sort(ref_w - ref_l))), sorted over the batch

    Arguments are summed log-probs ``(B,)``; the references are detached. ``flip`` smooths the label.
    """
    margins, ref_margins = pair_margin(logp_w, logp_l), pair_margin(ref_w.detach(), ref_l.detach())
    z = pair_margin(margins.sort().values, ref_margins.sort().values, beta=beta)
    return soft_label(logistic, z, symmetric_noise(1.0, flip=flip))


@recipe("aot-unpaired", "pair", beta=0.1)
def aot_unpaired(r_w: Tensor, r_l: Tensor, *, beta: float, flip: float = 0.0) -> Tensor:
    """AOT on unpaired data (arXiv:2406.05882): DPO between sorted log-ratios; ``w`` and ``l`` need no common prompt.

    Formula: -log sigmoid(beta (sort(r_w) - sort(r_l))), sorted over the batch
    """
    z = pair_margin(r_w.sort().values, r_l.sort().values, beta=beta)
    return soft_label(logistic, z, symmetric_noise(1.0, flip=flip))


@recipe("discopop", "pair", aliases=("lrml",), beta=0.1, tau=0.05)
def discopop(r_w: Tensor, r_l: Tensor, *, beta: float, tau: float) -> Tensor:
    """DiscoPOP (arXiv:2406.08414, equation 5): a discovered mixture of the logistic and the exponential loss.

    Formula: (1 - m) (-log sigmoid(z)) + m exp(-z), m = sigmoid(z / tau), z = beta (r_w - r_l)

    Not convex; m has a gradient.
    """
    check_positive(tau=tau)
    z = pair_margin(r_w, r_l, beta=beta)
    mixed = (-z - logistic(z / tau)).clamp(max=MAX_EXPONENT).exp()
    return (-z / tau).sigmoid() * logistic(z) + mixed


@recipe("sigmoid-norm", "pair", aliases=("length-normalized-dpo", "ln-dpo"), beta=0.1)
def sigmoid_norm(
    r_w: Tensor, r_l: Tensor, *, beta: float, mask_w: Tensor | None = None, mask_l: Tensor | None = None
) -> Tensor:
    """Length-normalised DPO (Tulu 3, arXiv:2411.15124): DPO on mean log-ratios per token.

    Formula: -log sigmoid(beta (mean_t r_w - mean_t r_l))

    ``r`` are token log-ratios ``(B, T)`` with their masks, or ``(B,)`` means.
    """
    return logistic(pair_margin(mean_log_ratio(r_w, mask=mask_w), mean_log_ratio(r_l, mask=mask_l), beta=beta))
