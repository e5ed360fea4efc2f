"""Schedules: laws and refusals."""

from __future__ import annotations

import pytest
import torch

from diffalign.sampling import flow_schedule, shifted_sigmas, vp_schedule
from diffalign.sampling.schedule import Schedule


def test_once_shifted_sigmas():
    grid = shifted_sigmas(16, 3.0)
    assert grid[[0, -1]].tolist() == [1, 0]
    assert grid[[1, -3, -2]].tolist() == pytest.approx([0.978, 0.300, 0.167], abs=5e-4)
    torch.testing.assert_close(shifted_sigmas(5, 1.0), torch.linspace(1, 0, 6, dtype=torch.float64))


def test_variance_preserving_identity():
    schedule = vp_schedule([0.1, 0.5, 0.99], [900, 500], "epsilon")
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(3, dtype=torch.float64))
    assert not schedule.is_flow and flow_schedule([1, 0.5, 0]).is_flow


def test_refusals():
    with pytest.raises(ValueError, match="must fall"):
        flow_schedule([0.5, 1.0, 0])
    with pytest.raises(ValueError, match="levels must be finite"):
        flow_schedule([float("nan"), 0.5, 0])
    with pytest.raises(ValueError, match="valid: flow"):
        vp_schedule([0.1, 0.2], [1], "eps")
    with pytest.raises(ValueError, match=r"T\+1"):
        Schedule(torch.ones(3), torch.tensor([1.0, 0.5, 0]), torch.ones(3), "flow")
