"""The two scalars of a step: every one-step sampler has a mean that is linear in the state and the prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-9


def affine(mean: Callable[[Tensor, Tensor], Tensor], batch: int) -> Tensor:
    """The weights (a, b) of ``mean = a x + b v``, `(B, 2)` float64.

    They are read off the step itself, by evaluating it on ones and zeros, so that there is one formula of it. With
    `diffalign.sampling`::

        affine(lambda v, x: dynamics.step(v, k, x, noise=torch.zeros_like(x)).mean, batch=len(latents))

    Args:
        mean: `(prediction (B, 1), state (B, 1)) -> mean (B, 1)` in float64.
        batch: B.

    Raises:
        ValueError: If the mean is not linear in both, as that of a multistep solver with a history.
    """
    zero, one = torch.zeros(batch, 1, dtype=torch.float64), torch.ones(batch, 1, dtype=torch.float64)
    a, b = mean(zero, one), mean(one, zero)
    gap = (mean(one, one) - a - b).abs() + mean(zero, zero).abs()
    if not bool((gap <= TOLERANCE * (1 + a.abs() + b.abs())).all()):
        raise ValueError("the mean of this step is not linear in state and prediction: use the sampler's own step")
    return torch.cat([a, b], dim=1)
