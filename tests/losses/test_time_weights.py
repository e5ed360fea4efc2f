from __future__ import annotations

import torch

from diffalign.losses import time_weights as w

T = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)


def test_weights_by_hand() -> None:
    assert w.constant_weight(T).tolist() == [1, 1, 1]
    assert torch.allclose(w.epsilon_weight(T), torch.tensor([1, 0.49, 0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(w.data_weight(T), torch.tensor([0, 0.09, 1], dtype=torch.float64), atol=1e-12)
    assert torch.equal(w.alpha_bar_weight(T), T)


def test_the_weight_of_masked_models_is_held_where_it_diverges() -> None:
    a = torch.tensor([1.0, 0.25, 0.001, 0.0005, 0.0], dtype=torch.float64)
    assert torch.allclose(w.elbo_weight(a), torch.tensor([1, 4, 1000, 1000, 1000], dtype=torch.float64), atol=1e-9)


def test_alpha_bar_turns_v_errors_into_errors_of_the_noise() -> None:
    """x = a x_0 + s eps, v = a eps - s x_0 with a**2 + s**2 = 1, so eps = s x + a v."""
    alpha_bar = torch.tensor([0.2, 0.7], dtype=torch.float64)
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x_0, noise, wrong = torch.randn(3, 2, dtype=torch.float64)
    x, v = a * x_0 + s * noise, a * noise - s * x_0
    of_noise = (s * x + a * (v + wrong) - noise) ** 2
    assert torch.allclose(w.alpha_bar_weight(alpha_bar) * wrong**2, of_noise, atol=1e-12)
