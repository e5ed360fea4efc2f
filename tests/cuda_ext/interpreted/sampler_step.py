"""The kernel of the step against its reference."""

from __future__ import annotations

import itertools

import pytest
import torch

from diffalign.cuda_ext.sampler_step import kernel, reference
from tests.cuda_ext.cases import gap, normal

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3}
ROWS = torch.tensor([[0.7, -0.2, 0.3, 1.0], [1.1, 0.4, 0.05, 4.5], [0.9, 0.3, 0.0, 0.0]])


@pytest.fixture(params=[(3, 7), (3, 4, 33, 19), (3, 2048), (1, 1)], ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return tuple(request.param)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_forward(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = [normal(*shape, seed=i, dtype=dtype) for i in range(5)]
    cond, uncond, x, given, old = tensors
    rows = ROWS[: shape[0]]
    for guided, compared, draw, total in itertools.product((False, True), repeat=4):
        arguments = (cond, uncond if guided else None, x, given, old if compared else None, rows, draw, total)
        found, expected = kernel.forward(*arguments), reference.forward(*arguments)
        assert gap(found[0], expected[0]) <= TOLERANCE[dtype] and found[0].dtype is dtype
        scale = rows[:, 2].clamp(min=reference.S_MIN) ** 2  # what a difference in next_x does to the density
        assert gap(found[1] * scale, expected[1] * scale) <= TOLERANCE[dtype]
        assert gap(found[2] * scale, expected[2] * scale) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_backward(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    cond, uncond, x, next_x, old, grad = (normal(*shape, seed=i, dtype=dtype) for i in range(6))
    rows, grad_rows = ROWS[: shape[0]], normal(shape[0], 2, seed=9)
    for guided, compared, passed, want_x in itertools.product((False, True), repeat=4):
        latents = (cond, uncond if guided else None, x, next_x, old if compared else None)
        arguments = (grad if passed else None, grad_rows, *latents, rows, want_x)
        for found, expected in zip(kernel.backward(*arguments), reference.backward(*arguments), strict=True):
            assert gap(found, expected) <= TOLERANCE[dtype] and found.dtype is expected.dtype


def test_types_may_differ_and_memory_may_be_permuted() -> None:
    x, given = normal(3, 5, 4, seed=1), normal(3, 5, 4, seed=2)
    cond = normal(3, 4, 5, dtype=torch.float16).transpose(1, 2)
    found, expected = (m.forward(cond, None, x, given, None, ROWS, True, False) for m in (kernel, reference))
    assert all(gap(*pair) <= 2e-6 for pair in zip(found, expected, strict=True))


def test_an_empty_batch_and_bfloat16() -> None:
    none = torch.zeros(0, 4)
    next_x, log_prob, kl = kernel.forward(none, None, none, none, None, torch.zeros(0, 4), True, False)
    assert next_x.shape == (0, 4) and log_prob.shape == kl.shape == (0,)
    half = normal(3, 4, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="garbage in bfloat16"):
        kernel.forward(half, None, half, half, None, ROWS, True, False)
