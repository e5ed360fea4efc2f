"""Reward-model losses on pairs: Bradley-Terry and its variants.

``score_w`` and ``score_l`` are rewards of the winner and the loser, ``(B,)``. All return ``(B,)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, check_probability
from diffalign.losses.label_noise import noise_mixture, soft_label
from diffalign.losses.preference import focal, logistic, pair_margin, probit
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.sft import logsigmoid


@recipe("bradley-terry", "reward_model", aliases=("reward-model", "bt"))
@recipe("ixc-25-reward", "reward_model", center=0.0)
@recipe("polar", "reward_model", center=0.0)
def bradley_terry(score_w: Tensor, score_l: Tensor, *, margin: float | Tensor = 0.0, center: float = 0.0) -> Tensor:
    """Bradley-Terry (TRL's ``RewardTrainer``), with a margin per pair and a penalty that centres rewards at 0.

    Formula: -log sigmoid(score_w - score_l - margin) + center (score_w + score_l)**2

    ``margin`` as in Llama 2 (arXiv:2307.09288), ``center`` is TRL's ``center_rewards_coefficient`` (.01 recommended,
    arXiv:2312.09244), 0 in the methods here:

    - IXC-2.5-Reward (arXiv:2501.12368), derived: a head on a vision-language model.
    - POLAR (arXiv:2507.05197): scores are conditioned on a reference answer; in pre-training the winner is a second
      sample of the reference's policy and the loser a sample of another one.
    """
    total = as_float(score_w) + as_float(score_l)
    return logistic(pair_margin(score_w, score_l, margin=margin)) + center * total**2


@recipe("skywork-reward-v1", "reward_model", gamma=0.0)
def skywork_reward(score_w: Tensor, score_l: Tensor, *, gamma: float) -> Tensor:
    """Skywork-Reward (arXiv:2410.18451): plain Bradley-Terry; ``gamma > 0`` is the focal ablation.

    Formula: -(1 - sigmoid(z))**gamma log sigmoid(z), z = score_w - score_l

    Its hinge and margin ablations are :func:`diffalign.losses.preference.hinge` and ``pair_margin(margin=...)``.
    """
    return focal(pair_margin(score_w, score_l), gamma=gamma)


@recipe("secrets-rlhf-2", "reward_model", flip_below=0.0, smooth_below=0.0, smooth=0.1)
def secrets_rlhf_2(
    score_w: Tensor, score_l: Tensor, votes: Tensor, *, flip_below: float, smooth_below: float, smooth: float
) -> Tensor:
    """Secrets of RLHF II (arXiv:2401.06080): preference strength by voting, for label flips, smoothing and margin.

    Formula: -p log sigmoid(z) - (1 - p) log sigmoid(-z), z = score_w - score_l - mean votes, p = 1 or 1 - smooth,
    flipped below flip_below

    Not in the released code. About 20 % of the data are flipped and 10 % smoothed [unsure]: choose the two
    thresholds by quantiles of the strength over the data set.

    Args:
        score_w: ``(B,)`` reward of the winner.
        score_l: ``(B,)`` reward of the loser.
        votes: ``(K, B)`` reward differences, winner minus loser, of K reward models (10 in the paper); detached. Their
            mean is the strength, which is also the margin.
        flip_below: pairs of smaller strength are swapped, with their margin.
        smooth_below: other pairs of smaller strength have the label ``1 - smooth``.
        smooth: in [0, 1].
    """
    check_probability(smooth=smooth)
    strength = as_float(votes.detach()).mean(0)
    label = torch.ones_like(strength).where(strength >= smooth_below, 1 - smooth).where(strength >= flip_below, 0.0)
    return soft_label(logistic, pair_margin(score_w, score_l, margin=strength), label)


@recipe("beyond-binary", "reward_model", scale=1.0)
def beyond_binary(score_w: Tensor, score_l: Tensor, agreement: Tensor, *, scale: float) -> Tensor:
    """Beyond the Binary (arXiv:2412.03822): a margin from the judges' agreement ``(B,)``, detached.

    Formula: -log sigmoid(score_w - score_l - scale agreement)

    A margin by agreement is from the paper; the linear form is unsure.
    """
    return logistic(pair_margin(score_w, score_l, margin=scale * as_float(agreement.detach())))


@recipe("atari-prefs-demos", "reward_model", flip=0.1)
def atari_prefs_demos(score_w: Tensor, score_l: Tensor, *, flip: float) -> Tensor:
    """Ibarz et al. (arXiv:1811.06521): a share ``flip`` of the labels is random; demonstrations are preferred to early
    samples.

    Formula: -log((1 - flip) sigmoid(score_w - score_l) + flip / 2)
    """
    return noise_mixture(pair_margin(score_w, score_l), flip=flip)


@recipe("pearl-rrl", "reward_model")
def pearl_rrl(mean_w: Tensor, mean_l: Tensor, std_w: Tensor, std_l: Tensor) -> Tensor:
    """PEARL's robust reward learning (arXiv:2306.03615), derived: rewards are Gaussian.

    Formula: -log Phi((mean_w - mean_l) / sqrt(std_w**2 + std_l**2))

    The closed form under hard labels; deterministic towards std = 0. Label transfer across tasks is not included.
    ``std`` ``(B,)``, not negative, with a gradient.

    Raises:
        ValueError: a standard deviation is negative.
    """
    check_not_negative(std_w=std_w, std_l=std_l)
    variance = as_float(std_w) ** 2 + as_float(std_l) ** 2
    return probit(pair_margin(mean_w, mean_l) * variance.clamp(min=1e-12).rsqrt())


@recipe("grm", "reward_model", share=0.01, beta=0.1)
def grm(score_w: Tensor, score_l: Tensor, logp_w: Tensor, *, share: float, beta: float) -> Tensor:
    """GRM (arXiv:2406.10216): Bradley-Terry plus the likelihood of the winner under the kept language head, which
    regularises the trunk; ``logp_w (B,)``.

    Formula: -(1 - share) log sigmoid(score_w - score_l) - share log sigmoid(beta logp_w)
    """
    check_probability(share=share)
    kept = logsigmoid(beta * as_float(logp_w))
    return (1 - share) * bradley_terry(score_w, score_l) + share * kept


@recipe("vpl", "reward_model", beta=0.01)
def vpl(score_w: Tensor, score_l: Tensor, mean: Tensor, log_var: Tensor, *, beta: float) -> Tensor:
    """VPL (arXiv:2408.10075): Bradley-Terry given a user's latent, plus the KL of its posterior.

    Formula: -log sigmoid(score_w - score_l) + beta KL(N(mean, exp(log_var)) || N(0, I))

    The latent is sampled from ``q = N(mean, exp(log_var))``, both ``(B, D)``, of the user of each pair. beta 0.01 is
    the default, 0 in the released scripts.
    """
    mean, log_var = as_float(mean), as_float(log_var)
    kl = (log_var.exp() + mean**2 - 1 - log_var).sum(1) / 2
    return bradley_terry(score_w, score_l) + beta * kl


@recipe("regret-preference", "reward_model")
def regret_preference(return_w: Tensor, return_l: Tensor, gain_w: Tensor, gain_l: Tensor) -> Tensor:
    """Regret preference model (arXiv:2206.02231): Bradley-Terry on returns plus differences of values.

    Formula: -log sigmoid((return_w + gain_w) - (return_l + gain_l)), gain = V(end) - V(start)

    This is minus the regret under deterministic transitions; ``V = 0`` is the partial-return model. Invariant under
    potential shaping. ``return`` ``(B,)``: sum of a segment's rewards; ``gain`` ``(B,)``: its difference of values.
    """
    return bradley_terry(as_float(return_w) + as_float(gain_w), as_float(return_l) + as_float(gain_l))


@recipe("prior-symbolic", "reward_model", weight=1.0)
def prior_symbolic(score_w: Tensor, score_l: Tensor, penalty: Tensor, *, weight: float) -> Tensor:
    """PRIOR with symbolic priors, derived: Bradley-Terry plus ``weight`` times a soft penalty ``(B,)`` on the reward.

    Formula: -log sigmoid(score_w - score_l) + weight penalty

    The paper's penalties are unconfirmed, the weight is ours.
    """
    return bradley_terry(score_w, score_l) + weight * as_float(penalty)


@recipe("parl", "reward_model", baseline=0.0)
def parl(score_w: Tensor, score_l: Tensor, logp_w: Tensor, logp_l: Tensor, *, baseline: float | Tensor) -> Tensor:
    """PARL (arXiv:2308.02585): Bradley-Terry on the policy's own samples, with a score-function correction for the
    dependence of the samples on the reward model.

    Formula: L + sg(L - baseline) (logp_w + logp_l), L = -log sigmoid(score_w - score_l)

    ``logp`` ``(B,)`` are live log-probs of the two samples; the second-order dependence on the reward model is not
    included. Without ``logp`` the correction is a constant.
    """
    loss = bradley_terry(score_w, score_l)
    return loss + (loss.detach() - baseline) * (as_float(logp_w) + as_float(logp_l))
