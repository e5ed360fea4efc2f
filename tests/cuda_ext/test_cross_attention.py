"""Attention to few keys: closed forms, gradients in float64, lengths, and what is refused or left to torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from diffalign.cuda_ext import cross_attention
from diffalign.cuda_ext.cross_attention import reason
from tests.cuda_ext.cases import gap, normal

operator = torch.ops.diffalign.cross_attention.default
LENS = [5, 0, 3]


def inputs(dtype: torch.dtype = torch.float64, queries: int = 4, keys: int = 5, d: int = 3) -> list[Tensor]:
    """q, k and v of three samples and two heads."""
    shapes = ((3, 2, queries, d), (3, 2, keys, d), (3, 2, keys, d))
    return [normal(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]


def lengths() -> Tensor:
    return torch.tensor(LENS, dtype=torch.int32)


def test_it_is_attention() -> None:
    q, k, v = inputs()
    expected = scaled_dot_product_attention(q, k, v)
    assert gap(operator(q, k, v, None, 3**-0.5)[0], expected) < 1e-12
    assert gap(cross_attention(q, k, v), expected) < 1e-12
    assert gap(cross_attention(q, k, v, scale=0.0), v.mean(2, keepdim=True).expand_as(q)) < 1e-12


@pytest.mark.parametrize("through", ["operator", "torch"])
def test_a_sample_attends_to_its_own_keys_alone(through: str) -> None:
    """As if each sample were cut to its length; what lies behind, NaN too, reaches neither value nor gradient."""
    q, k, v = inputs()
    for i, length in enumerate(LENS):
        k[i, :, length:], v[i, :, length:] = torch.nan, torch.inf
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    out = (
        operator(*leaves, lengths(), 0.7)[0]
        if through == "operator"
        else cross_attention(*leaves, kv_lens=LENS, scale=0.7)
    )
    found = torch.autograd.grad(out.square().sum(), leaves)
    for i, length in enumerate(LENS):
        if not length:
            assert not out[i].any() and not any(gradient[i].any() for gradient in found)
            continue
        cut = [q[i : i + 1].detach(), *(t[i : i + 1, :, :length].detach() for t in (k, v))]
        cut = [tensor.requires_grad_() for tensor in cut]
        alone = scaled_dot_product_attention(*cut, scale=0.7)
        assert gap(out[i : i + 1], alone) < 1e-12
        for gradient, expected in zip(found, torch.autograd.grad(alone.square().sum(), cut), strict=True):
            assert gap(gradient[i : i + 1, :, : expected.shape[2]], expected) < 1e-12
            assert not gradient[i, :, expected.shape[2] :].any()


def test_every_gradient_is_right() -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs()]

    def run(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = operator(*leaves, lengths(), 0.8)
        return out, lse.nan_to_num(neginf=0.0)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True), (True, False, True)]
)
def test_what_is_frozen_gets_no_gradient_and_the_others_the_same(wanted: tuple[bool, ...]) -> None:
    grads = []
    for every in (True, False):
        leaves = [t.requires_grad_(every or want) for t, want in zip(inputs(), wanted, strict=True)]
        operator(*leaves, lengths(), 0.8)[0].square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for want, everyone, some in zip(wanted, *grads, strict=True):
        assert torch.equal(everyone, some) if want else some is None


def test_queries_are_independent_and_keys_have_no_order() -> None:
    q, k, v = inputs()
    whole = operator(q, k, v, None, 1.0)[0]
    assert torch.equal(operator(q[:, :, 1:2], k, v, None, 1.0)[0], whole[:, :, 1:2])
    turned = torch.tensor([4, 2, 0, 1, 3])
    assert gap(operator(q, k[:, :, turned], v[:, :, turned], None, 1.0)[0], whole) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    q, k, v = inputs(dtype, queries=33, keys=77, d=40)
    exact = scaled_dot_product_attention(q.double(), k.double(), v.double())
    out = operator(q, k, v, None, 40**-0.5)[0]
    assert out.dtype is dtype and gap(out, exact) <= torch.finfo(dtype).eps


def test_autocast_changes_nothing() -> None:
    q, k, v = inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = operator(q, k, v, None, 1.0)[0]
    assert torch.equal(found, operator(q, k, v, None, 1.0)[0])


def test_a_large_score_overflows_nothing() -> None:
    q, k, v = inputs(torch.float32)
    out, lse = operator(1e4 * q, 1e4 * k, v, None, 1.0)
    assert out.isfinite().all() and lse.isfinite().all()
    assert gap(out, operator(2e4 * q, 1e4 * k, v, None, 1.0)[0]) < 1e-6, "the largest score takes all"


@pytest.mark.parametrize(("queries", "keys", "samples"), [(0, 5, 3), (4, 0, 3), (4, 5, 0)])
def test_empty_parts_are_served(queries: int, keys: int, samples: int) -> None:
    q, k, v = (tensor[:samples].requires_grad_() for tensor in inputs(torch.float32, queries, keys))
    for out in (operator(q, k, v, None, 1.0)[0], cross_attention(q, k, v, kv_lens=[0] * samples)):
        assert out.shape == q.shape and not out.any()
        out.sum().backward()


def test_strides_do_not_matter() -> None:
    q, k, v = inputs(torch.float32)
    turned = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (q, k, v)]
    turned[1] = k.mT.contiguous().mT
    assert not any(tensor.is_contiguous() for tensor in turned)
    assert gap(operator(*turned, None, 1.0)[0], operator(q, k, v, None, 1.0)[0]) < 1e-6


@pytest.mark.parametrize("lens", [None, LENS])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_operator_is_registered_as_torch_wants_it(lens: list[int] | None, frozen: bool) -> None:
    q, k, v = inputs(torch.float32)
    arguments = (q.requires_grad_(), *(t.requires_grad_(not frozen) for t in (k, v)))
    torch.library.opcheck(operator, (*arguments, None if lens is None else lengths(), 0.5))


def test_it_compiles_into_one_graph() -> None:
    q, k, v = inputs(torch.float32)
    q.requires_grad_()

    def loss(q: Tensor) -> Tensor:
        return operator(q, k, v, lengths(), 0.5)[0].square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    one, other = (torch.autograd.grad(function(q), q)[0] for function in (loss, compiled))
    assert torch.equal(one, other)


@pytest.mark.parametrize("function", [lambda *t: operator(*t, None, 1.0)[0], cross_attention])
def test_a_second_derivative_is_refused(function: Callable[..., Tensor]) -> None:
    q, k, v = inputs()
    q.requires_grad_()
    (first,) = torch.autograd.grad(function(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), q)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": normal(3, 2, 4)}, "expected q"),
        ({"q": normal(3, 2, 4, 7)}, "expected q"),
        ({"q": normal(3, 1, 4, 3)}, "expected q"),
        ({"v": normal(3, 2, 4, 3)}, "expected q"),
        ({"q": torch.zeros(3, 2, 4, 0), "k": torch.zeros(3, 2, 5, 0), "v": torch.zeros(3, 2, 5, 0)}, "expected q"),
        ({"q": normal(3, 2, 4, 3, dtype=torch.float16)}, "one floating-point type"),
        ({name: torch.zeros(3, 2, 4, 3, dtype=torch.long) for name in "qkv"}, "one floating-point type"),
        ({"v": torch.zeros(3, 2, 5, 3, device="meta")}, "one device"),
        ({"kv_lens": [1, 2]}, "3 numbers from 0 to 5"),
        ({"kv_lens": [1, 2, 6]}, "3 numbers from 0 to 5, got .*6"),
        ({"kv_lens": [1, 2, -1]}, "3 numbers from 0 to 5, got .*-1"),
        ({"kv_lens": torch.ones(3)}, "whole numbers"),
        ({"kv_lens": torch.ones(3, dtype=torch.long, device="meta")}, "on the CPU"),
    ],
)
def test_bad_input_is_refused_with_the_reason(change: dict[str, Any], message: str) -> None:
    q, k, v = inputs(torch.float32)
    with pytest.raises(ValueError, match=message):
        cross_attention(**{"q": q, "k": k, "v": v, **change})


def test_the_reason_is_said() -> None:
    for d, keys, dtype, said in (
        (48, 77, torch.float16, "head dimension 48"),
        (40, 513, torch.float16, "513 keys"),
        (40, 77, torch.float64, "float64"),
        (40, 77, torch.float16, "on cpu"),
    ):
        q, k, v = inputs(dtype, keys=keys, d=d)
        assert said in str(reason(q, k, v))
