"""The kernels of cross-attention against their reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from diffalign.cuda_ext.cross_attention import kernel, reference
from diffalign.cuda_ext.cross_attention.operator import HEAD_DIMS
from tests.cuda_ext.cases import gap, normal

TOLERANCE = {torch.float32: 3e-6, torch.float16: 4e-3}
LENS = torch.tensor([77, 0], dtype=torch.int32)


def inputs(d: int, dtype: torch.dtype, queries: int = 37, keys: int = 77) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of two samples and two heads; the memory of q is (B, Lq, H, D), as pipelines have it."""
    q = normal(2, queries, 2, d, seed=1, dtype=dtype).transpose(1, 2)
    return q, normal(2, 2, keys, d, seed=2, dtype=dtype), normal(2, 2, keys, d, seed=3, dtype=dtype)


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is other.dtype and torch.equal(one.isinf(), other.isinf())
        assert gap(one.nan_to_num(neginf=0), other.nan_to_num(neginf=0)) <= tolerance


@pytest.mark.parametrize("d", HEAD_DIMS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_forward_and_backward(d: int, dtype: torch.dtype) -> None:
    q, k, v = inputs(d, dtype)
    lens = LENS if d % 16 else None
    found, expected = (m.forward(q, k, v, lens, d**-0.5) for m in (kernel, reference))
    agree(found, expected, TOLERANCE[dtype])
    out, lse = expected
    grad = normal(*q.shape, seed=4, dtype=dtype)
    arguments = (grad, (grad.float() * out.float()).sum(-1), lse, q, k, v, lens, d**-0.5)
    found, expected = (m.backward(*arguments, True, True) for m in (kernel, reference))
    agree(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("d", (40, 128))
def test_half_precision_is_as_good_as_torchs_own(d: int) -> None:
    q, k, v = inputs(d, torch.float16)
    exact = scaled_dot_product_attention(q.double(), k.double(), v.double())
    found, plain = kernel.forward(q, k, v, None, d**-0.5)[0], scaled_dot_product_attention(q, k, v)
    assert gap(found, exact) <= 2 * gap(plain, exact) + 1e-6


def test_garbage_behind_the_last_key_reaches_nothing() -> None:
    q, k, v = inputs(40, torch.float32)
    lens = torch.tensor([64, 3], dtype=torch.int32)  # a whole tile, and less than one
    for i, length in enumerate(lens.tolist()):
        k[i, :, length:], v[i, :, length:] = torch.nan, torch.inf
    found, expected = (m.forward(q, k, v, lens, 0.2) for m in (kernel, reference))
    agree(found, expected, TOLERANCE[torch.float32])
    grad = normal(*q.shape, seed=4)
    arguments = (grad, (grad * expected[0]).sum(-1), expected[1], q, k, v, lens, 0.2)
    found, expected = (m.backward(*arguments, True, True) for m in (kernel, reference))
    agree(found, expected, TOLERANCE[torch.float32])
    assert not found[1][1, :, 3:].any() and not found[2][1, :, 3:].any()


def test_scores_far_from_zero() -> None:
    """exp(0 - lse) of a key that is not there would be infinite."""
    _, k, v = inputs(40, torch.float32, queries=5)
    for level in (-4.0, 4.0):
        q, keys = torch.full((2, 2, 5, 40), level), k + 5
        out, lse = reference.forward(q, keys, v, LENS, 0.2)
        assert lse[0].abs().min() > 100
        agree(kernel.forward(q, keys, v, LENS, 0.2), (out, lse), 1e-3)
        arguments = (out, out.square().sum(-1), lse, q, keys, v, LENS, 0.2, True, True)
        agree(kernel.backward(*arguments), reference.backward(*arguments), 1e-3)


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_the_gradient_of_the_keys_is_the_same_however_queries_are_split(splits: int) -> None:
    q, k, v = inputs(40, torch.float32, queries=200, keys=9)
    out, lse = reference.forward(q, k, v, None, 0.2)
    grad = normal(*q.shape, seed=4)
    delta = (grad * out).sum(-1)
    _, *expected = reference.backward(grad, delta, lse, q, k, v, None, 0.2, False, True)
    strides = [stride for tensor in (grad, q, k, v) for stride in tensor.stride()[:3]]
    found = kernel.key_gradient((grad, delta, lse, q, k, v), strides, None, 0.2, splits)
    agree(tuple(found), tuple(expected), TOLERANCE[torch.float32])


@pytest.mark.parametrize(("want_q", "want_kv"), [(True, False), (False, True)])
def test_what_is_not_wanted_is_not_computed(want_q: bool, want_kv: bool) -> None:
    q, k, v = inputs(40, torch.float32, queries=5)
    out, lse = reference.forward(q, k, v, None, 0.2)
    arguments = (out, out.square().sum(-1), lse, q, k, v, None, 0.2, want_q, want_kv)
    found, expected = kernel.backward(*arguments), reference.backward(*arguments)
    agree(found, expected, TOLERANCE[torch.float32])
    assert [bool(tensor.numel()) for tensor in found] == [want_q, want_kv, want_kv]


@pytest.mark.parametrize(("queries", "keys"), [(0, 5), (5, 0)])
def test_empty_parts(queries: int, keys: int) -> None:
    q, k, v = inputs(40, torch.float32, queries, keys)
    found, expected = (m.forward(q, k, v, None, 0.2) for m in (kernel, reference))
    agree(found, expected, 0)
    arguments = (found[0], found[1].nan_to_num(neginf=0), found[1], q, k, v, None, 0.2, True, True)
    agree(kernel.backward(*arguments), reference.backward(*arguments), 0)


def test_other_strides_and_bfloat16() -> None:
    q, k, v = inputs(40, torch.float32, queries=5)
    turned = k.mT.contiguous().mT
    assert turned.stride(-1) != 1
    agree(kernel.forward(q, turned, v, None, 0.2), reference.forward(q, k, v, None, 0.2), TOLERANCE[torch.float32])
    with pytest.raises(ValueError, match="garbage in bfloat16"):
        kernel.forward(q.bfloat16(), k.bfloat16(), v.bfloat16(), None, 0.2)
