"""Inputs of the parity tests: the released functions were run on them, outside the tree, and their numbers kept.

verl 0.9.1 (verl/trainer/ppo/core_algos.py, rollout_corr_helper.py) and TRL 1.16.0 (trl/trainer, trl/experimental), in
float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

F64 = torch.float64


def f64(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=F64)


OLD = f64([-0.9, -1.4, -0.3, -2.0], [-0.5, -1.1, -0.2, -0.7], [-1.6, -0.8, -2.5, -0.4])
X = f64([0.25, -0.35, 0.05, 0.6], [-0.15, 0.3, -0.45, 0.1], [0.4, -0.1, 0.02, -0.2])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
ADV = f64(1.2, -0.7, 0.4)

R_W, R_L = f64(1.2, -0.4, 0.3), f64(-0.5, 0.6, 0.1)
TOKENS_W = f64([-0.5, -1.0, -0.2, -0.8], [-1.5, -0.3, 0.0, 0.0], [-0.4, -0.9, -0.1, 0.0])
TOKENS_L = f64([-1.1, -0.6, 0.0, 0.0], [-0.2, -0.7, -1.3, -0.5], [-2.0, 0.0, 0.0, 0.0])
MASK_W = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
MASK_L = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])

REWARDS = f64([1.0, 2.0, 4.0], [0.0, 1.0, 1.0])


def policy_gradient(loss: Callable[[Tensor], Tensor]) -> tuple[float, list[float]]:
    """A scalar loss of the log-ratio at X, and its gradient, row by row."""
    x = X.clone().requires_grad_()
    value = loss(x)
    return value.item(), torch.autograd.grad(value, x)[0].flatten().tolist()
