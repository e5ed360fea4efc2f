"""Pairs of a data image and a generated one, on surrogate log-ratios ``(B,)`` (mean over latents).

All return ``(B,)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_probability, check_same_shape
from diffalign.losses.label_noise import soft_label
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.preference import dpo
from diffalign.losses.recipes.registry import recipe


def anchor_sign(error: Tensor, error_ref: Tensor) -> Tensor:
    """Return +1 where the policy denoises the data image better than the reference, else -1; detached.

    One sample of (t, noise) estimates the expectation. ``error`` ``(B,)``, like the result.
    """
    check_same_shape(error=error, error_ref=error_ref)
    better = as_float(error_ref) > as_float(error)
    return torch.where(better, 1.0, -1.0).to(as_float(error).dtype)


@recipe("seppo", "pair", beta=5000.0)
def seppo(r_w: Tensor, r_l: Tensor, sign: Tensor, *, beta: float) -> Tensor:
    """SePPO (arXiv:2410.05255, form derived; no trainer is released): data images against samples of a reference, which
    is sampled from earlier checkpoints.

    Formula: -log sigmoid(beta (r_w - s r_l)), s = +1 or -1

    With s = 1 the sample is the loser; with s = -1, while the policy is worse than the reference, a second winner. beta
    is twice that of the paper, whose value is not published; 5000 is Diffusion-DPO's [unsure].

    Args:
        r_w: surrogates of data images.
        r_l: surrogates of samples of the reference.
        sign: ``(B,)`` of :func:`anchor_sign`, detached.
        beta: inverse temperature.
    """
    check_same_shape(r_l=r_l, sign=sign)
    return dpo(r_w, as_float(sign.detach()) * as_float(r_l), beta=beta)


@recipe("rpo-harmonic", "pair", beta=2.0)
def rpo_harmonic(r_w: Tensor, r_l: Tensor, error_real: Tensor, p: Tensor, *, beta: float) -> Tensor:
    """RPO (arXiv:2407.12164, the form of the code): the error of the reference photo plus a soft-label pair loss.

    Formula: error_real + p softplus(-z) + (1 - p) softplus(z), z = beta (r_w - r_l)

    The code's own ``beta`` is unused: its margin has 2 in our convention. It samples the label from ``p``; the soft
    label is the expectation.

    Args:
        r_w: surrogates of reference photos, each with its own noise and time.
        r_l: surrogates of generated images.
        error_real: denoising errors of the reference photos, with their gradient.
        p: ``(B,)`` in [0, 1], ``sigmoid(reward of the photo - reward of the image)``, or a sampled 0 or 1; detached.
        beta: 2.
    """
    check_floating(error_real=error_real)
    check_same_shape(r_w=r_w, error_real=error_real, p=p)
    check_probability(p=p)
    return as_float(error_real) + soft_label(logistic, pair_margin(r_w, r_l, beta=beta), as_float(p))
