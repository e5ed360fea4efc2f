"""Weights of a denoising error by its time. All have one shape, ``(B,) -> (B,)``.

Flows: ``x_t = (1 - t) x_0 + t noise`` with t = 0 at the data, velocity ``noise - x_0``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Weight = Callable[[Tensor], Tensor]


def constant_weight(t: Tensor) -> Tensor:
    """Return 1: the weight that flow models are trained with (Flow-DPO, DSO)."""
    return torch.ones_like(t)


def epsilon_weight(t: Tensor) -> Tensor:
    """Return ``(1 - t)**2``: a squared velocity error times this is the squared error of the noise."""
    return (1 - t) ** 2


def data_weight(t: Tensor) -> Tensor:
    """Return ``t**2``: a squared velocity error times this is the squared error of the image."""
    return t**2


def alpha_bar_weight(alpha_bar: Tensor) -> Tensor:
    """Return ``alpha_bar``: a squared error of a variance-preserving v-prediction times this is that of the noise."""
    return alpha_bar


def elbo_weight(mask_prob: Tensor) -> Tensor:
    """Return ``1 / a``, ``a`` clamped to at least 1e-3: the weight of masked models whose mask probability is linear in
    time (MDLM; D2-DPO, arXiv:2503.08295, where time runs from noise to data and ``a = 1 - t``).
    """
    return 1 / mask_prob.clamp(min=1e-3)
