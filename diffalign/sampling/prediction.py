"""What a network's output says about the clean sample and the noise."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Convert = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def from_flow(v: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x0_hat, eps_hat) from a flow velocity ``v = eps - x0`` at ``x = alpha x0 + sigma eps``."""
    scale = alpha + sigma
    return (x - sigma * v) / scale, (x + alpha * v) / scale


def from_epsilon(eps: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x0_hat, eps_hat) from predicted noise; 1/alpha amplifies at high noise."""
    return (x - sigma * eps) / alpha, eps


def from_v_prediction(v: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x0_hat, eps_hat) from ``v = alpha eps - sigma x0`` on a variance-preserving path (Salimans & Ho 2022)."""
    return alpha * x - sigma * v, sigma * x + alpha * v


def from_sample(x0: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x0_hat, eps_hat) from a predicted clean sample; 1/sigma amplifies at low noise."""
    return x0, (x - alpha * x0) / sigma


PREDICTIONS: dict[str, Convert] = {
    "flow": from_flow,
    "epsilon": from_epsilon,
    "v_prediction": from_v_prediction,
    "sample": from_sample,
}
