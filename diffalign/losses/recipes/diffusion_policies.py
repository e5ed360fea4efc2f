"""Online methods for diffusion and flow models by name: ratios per denoising step, or errors on re-noised samples.

Log-probs of steps are means over latent elements, hence the small clip ranges. Sampler, steps and guidance of a method
are in its recipe file (``diffalign train --recipe``).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diffalign.losses import forward_process
from diffalign.losses.common import as_float
from diffalign.losses.policy import clip
from diffalign.losses.recipes.registry import recipe


@recipe("ddpo", "policy", aliases=("ddpo-is",), eps=1e-4, adv_clip=5.0)
@recipe("flow-grpo", "policy", eps=1e-4, adv_clip=5.0)
@recipe("dancegrpo", "policy", eps=1e-4, adv_clip=5.0)
@recipe("mixgrpo", "policy", eps=1e-4, adv_clip=5.0)
@recipe("flow-cps", "policy", eps=1e-4, adv_clip=5.0)
@recipe("grpo-guard", "policy", eps=2e-6, adv_clip=5.0)
def step_clip(log_ratio: Tensor, adv: Tensor, *, eps: float, adv_clip: float, mask: Tensor | None = None) -> Tensor:
    """PPO's clip on each denoising step: DDPO (arXiv:2305.13301), Flow-GRPO (2505.05470), DanceGRPO (2505.07818),
    MixGRPO (2507.21802), Flow-CPS (2509.05952), GRPO-Guard (2510.22319).

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps)), A clipped to +-adv_clip, rho = exp(log_ratio)

    The methods differ in their inputs: log-ratios of :func:`~diffalign.losses.plain_log_ratio`,
    :func:`~diffalign.losses.cps_log_ratio` (Flow-CPS) or :func:`~diffalign.losses.guard_log_ratio` (GRPO-Guard, clip
    2e-6, for PickScore 4e-6); advantages per prompt history (``ddpo-advantage``), over the std of the batch
    (``flow-grpo-advantage``) or of the group (``grpo-advantage`` with ``eps=1e-8``, DanceGRPO). Flow-GRPO adds a KL of
    weight .04 (GenEval) or .01 (PickScore) in the form :func:`~diffalign.losses.dt_scaled_kl`.
    """
    return clip(log_ratio, as_float(adv).clamp(-adv_clip, adv_clip), eps_low=eps, mask=mask)


@recipe("diffusion-nft", "forward_process", aliases=("nft",), beta=1.0, adv_clip=5.0)
def diffusion_nft(
    value: Tensor,
    value_old: Tensor,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    adv: Tensor,
    *,
    beta: float,
    adv_clip: float,
) -> Tensor:
    """DiffusionNFT (arXiv:2509.16117, the released form): implicit positive and negative velocities on re-noised
    samples.

    Formula: adv_clip (r l(v_old + beta (v - v_old)) + (1 - r) l(v_old - beta (v - v_old))) / beta,
    r = clamp(A / adv_clip, -1, 1) / 2 + 1/2, l = squared error of x0 over its detached mean size

    beta is 1 for GenEval, .1 for OCR and several rewards. Arguments as in :func:`diffalign.losses.forward_process.nft`.
    """
    label = forward_process.optimality(adv, clip=adv_clip)
    return adv_clip * forward_process.nft(value, value_old, x0, noise, t, label, beta=beta)


@recipe("awm", "forward_process", eps=1.0, adv_clip=5.0, matching=forward_process.generalised_huber_matching)
def awm(
    value: Tensor,
    value_old: Tensor,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    adv: Tensor,
    *,
    eps: float,
    adv_clip: float,
    matching: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Advantage-weighted matching (arXiv:2509.25050, the released form): PPO's clip with minus a matching error as
    log-prob.

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps)), rho = exp(matching(e, t) - matching(e_old, t)),
    e = mean squared error of the velocity against noise - x0, A clipped to +-adv_clip and divided by it

    The released SD3.5 configurations use the generalised Huber matching and a clip range of 1. Arguments: ``value``,
    ``value_old`` the velocities of the policy and of the sampling policy, ``x0`` and ``noise`` ``(B, ...)``, ``t`` and
    ``adv`` ``(B,)``; only ``value`` has a gradient.
    """
    now, old = (matching(forward_process.matching_error(v, x0, noise), t) for v in (value, value_old.detach()))
    return clip(now - old, as_float(adv).clamp(-adv_clip, adv_clip) / adv_clip, eps_low=eps)
