"""The kernels of token log-probs against their reference."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from diffalign.cuda_ext.linear_log_prob import kernel, reference
from diffalign.cuda_ext.linear_log_prob.reference import Layer, Rows
from tests.cuda_ext.cases import gap, normal

TOLERANCE = 5e-6


def layer(rows: int, words: int, width: int, dtype: torch.dtype = torch.float32, bias: bool = True) -> Layer:
    labels = torch.randint(words, (rows,), generator=torch.Generator().manual_seed(3))
    hidden, weight = normal(rows, width, seed=1, dtype=dtype), normal(words, width, seed=2, dtype=dtype)
    return Layer(hidden, weight, normal(words, seed=4, dtype=dtype) if bias else None, labels, 0.7)


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is other.dtype and gap(one, other) <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "words", "width"), [(1, 1, 16), (5, 131, 33), (130, 300, 40)])
def test_forward_and_backward(rows: int, words: int, width: int, dtype: torch.dtype) -> None:
    for bias in (True, False):
        one = layer(rows, words, width, dtype, bias)
        exact = Layer(*(None if t is None else t.double() for t in one[:3]), one.labels, one.temperature)
        expected = reference.forward(exact, 2**20)
        for splits in (None, 1, 2):
            assert all(gap(*pair) <= TOLERANCE for pair in zip(kernel.forward(one, 0, splits), expected, strict=True))
        tokens = Rows(expected[1], normal(rows, seed=6).double(), normal(rows, seed=7).double())
        single = Rows(*(row.float() for row in tokens))
        found = kernel.backward(one, single, reference.BYTES * rows * 100, (True, True, True))
        plain = reference.backward(one, single, 2**20, (True, True, True))  # torch rounds logits to half precision
        right = reference.backward(exact, tokens, 2**20, (True, True, True))
        for ours, theirs, best in zip(found, plain, right, strict=True):
            assert ours.dtype is theirs.dtype and gap(ours, best) <= 2 * gap(theirs, best) + TOLERANCE


def test_what_is_not_wanted_is_empty() -> None:
    one = layer(5, 20, 16)
    tokens = Rows(reference.forward(one, 2**20)[1], normal(5, seed=6), normal(5, seed=7))
    for wanted in itertools.product((True, False), repeat=3):
        found, expected = (m.backward(one, tokens, 2**20, wanted) for m in (kernel, reference))
        agree(found, expected, TOLERANCE)
        assert tuple(bool(tensor.numel()) for tensor in found) == wanted


def test_words_that_a_bias_rules_out_and_large_logits() -> None:
    one = layer(5, 300, 16)
    assert one.bias is not None
    one.bias[:260] = -math.inf  # whole tiles, and whole parts of the vocabulary
    one.labels[:] = 280
    expected = reference.forward(one, 2**20)
    for splits in (1, 3):
        agree(kernel.forward(one, 0, splits), expected, TOLERANCE)
    tokens = Rows(expected[1], normal(5, seed=6), normal(5, seed=7))
    found, expected = (m.backward(one, tokens, 2**20, (True, True, True)) for m in (kernel, reference))
    agree(found, expected, TOLERANCE)
    large = one._replace(hidden=100 * one.hidden, bias=None)
    agree(kernel.forward(large, 0), reference.forward(large, 2**20), TOLERANCE)


def test_no_rows_other_strides_and_bfloat16() -> None:
    one = layer(5, 20, 16)
    none = one._replace(hidden=one.hidden[:0], labels=one.labels[:0])
    assert [tensor.shape for tensor in kernel.forward(none, 0)] == [(0,), (0,)]
    empty = one.hidden.new_zeros(0)
    gradients = kernel.backward(none, Rows(empty, empty, empty), 2**20, (True, True, True))
    assert [tuple(tensor.shape) for tensor in gradients] == [(0, 16), (20, 16), (20,)] and not gradients[1].any()
    turned = one._replace(weight=one.weight.T.contiguous().T, labels=one.labels.int())
    agree(kernel.forward(turned, 0), reference.forward(one, 2**20), TOLERANCE)
    with pytest.raises(ValueError, match="garbage in bfloat16"):
        kernel.forward(layer(5, 20, 16, torch.bfloat16), 0)
