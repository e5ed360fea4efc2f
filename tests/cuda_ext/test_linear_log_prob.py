"""Token log-probs: the numbers of `diffalign.losses`, gradients in float64, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.cuda_ext import linear_log_prob
from diffalign.cuda_ext.linear_log_prob import reason
from diffalign.losses import linear_log_prob as module
from tests.cuda_ext.cases import gap, normal

losses_log_prob: Callable[..., Tensor] = getattr(module, "linear_log_prob", module)  # the package may export either
operator = torch.ops.diffalign.linear_log_prob.default
WORDS, WIDTH = 11, 4
SMALL = 12 * 6 * 4
"""Bytes of tiles of four words for six rows."""


def layer(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states of a shape, weight, labels and bias."""
    labels = torch.randint(WORDS, shape, generator=torch.Generator().manual_seed(3))
    return (
        normal(*shape, WIDTH, dtype=dtype),
        normal(WORDS, WIDTH, seed=1, dtype=dtype),
        labels,
        normal(WORDS, seed=2, dtype=dtype),
    )


@pytest.mark.parametrize("memory", [1, SMALL, 2**20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_losses(memory: int, dtype: torch.dtype) -> None:
    hidden, weight, labels, bias = layer(2, 3, dtype=dtype)
    labels[0, 1] = -100
    found = []
    for function in (linear_log_prob, losses_log_prob):
        leaves = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
        out = function(leaves[0], leaves[1], labels, bias=leaves[2], temperature=0.7, memory=memory)
        assert out[0, 1] == 0
        weights = normal(2, 3, seed=5, dtype=out.dtype)
        found.append((out, *torch.autograd.grad((out * weights).sum(), leaves)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype is theirs.dtype and gap(ours, theirs) <= 4 * torch.finfo(dtype).eps


def test_it_is_the_log_softmax() -> None:
    hidden, weight, labels, bias = layer(6)
    z = (hidden @ weight.T + bias) / 1.3
    found = linear_log_prob(hidden, weight, labels, bias=bias, temperature=1.3, memory=SMALL)
    assert gap(found, torch.distributions.Categorical(logits=z).log_prob(labels)) < 1e-12
    whole = [linear_log_prob(hidden, weight, torch.full((6,), w), bias=bias, memory=SMALL) for w in range(WORDS)]
    assert gap(torch.stack(whole).exp().sum(0), torch.ones(6)) < 1e-12
    uniform = linear_log_prob(0 * hidden, weight, labels)
    assert gap(uniform, torch.full((6,), -math.log(WORDS), dtype=torch.float64)) < 1e-12


@pytest.mark.parametrize("with_bias", [True, False])
def test_every_gradient_is_right(with_bias: bool) -> None:
    hidden, weight, labels, bias = layer(6)
    leaves = [hidden.requires_grad_(), weight.requires_grad_(), *[bias.requires_grad_()] * with_bias]

    def run(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return operator(hidden, weight, bias, labels, 0.7, SMALL)

    assert torch.autograd.gradcheck(run, leaves)


def test_a_frozen_weight_gets_no_gradient_and_the_others_the_same() -> None:
    grads = []
    for frozen in (False, True):
        hidden, weight, labels, bias = layer(6)
        leaves = [hidden.requires_grad_(), weight.requires_grad_(not frozen), bias.requires_grad_()]
        operator(leaves[0], leaves[1], leaves[2], labels, 1.0, SMALL)[0].square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][2], grads[1][2]) and grads[1][1] is None


def test_autocast_changes_nothing() -> None:
    hidden, weight, labels, _ = layer(6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_log_prob(hidden, weight, labels)
    assert torch.equal(found, linear_log_prob(hidden, weight, labels))


def test_a_word_that_a_bias_rules_out_has_no_share() -> None:
    hidden, weight, labels, bias = layer(6, dtype=torch.float32)
    bias[:8], labels[:] = -math.inf, 9
    found = linear_log_prob(hidden, weight, labels, bias=bias, memory=SMALL)
    assert gap(found, linear_log_prob(hidden, weight[8:], labels - 8, bias=bias[8:])) < 1e-6


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_no_tokens_are_served(shape: tuple[int, ...]) -> None:
    hidden, weight, labels, bias = layer(*shape)
    out = linear_log_prob(hidden.requires_grad_(), weight.requires_grad_(), labels, bias=bias)
    out.sum().backward()
    assert out.shape == shape and weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_operator_is_registered_as_torch_wants_it(with_bias: bool) -> None:
    hidden, weight, labels, bias = layer(6, dtype=torch.float32)
    leaves = hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_() if with_bias else None
    torch.library.opcheck(operator, (*leaves, labels, 0.7, SMALL))


def test_it_compiles_into_one_graph() -> None:
    hidden, weight, labels, bias = layer(6, dtype=torch.float32)

    def loss(hidden: Tensor) -> Tensor:
        return operator(hidden, weight, bias, labels, 0.7, SMALL)[0].sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaf = hidden.requires_grad_()
    one, other = (torch.autograd.grad(function(leaf), leaf)[0] for function in (loss, compiled))
    assert torch.equal(one, other)


def test_a_second_derivative_is_refused() -> None:
    hidden, weight, labels, _ = layer(6)
    value = linear_log_prob(hidden.requires_grad_(), weight, labels).sum()
    (first,) = torch.autograd.grad(value, hidden, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), hidden)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": normal(6, 3)}, "expected hidden"),
        ({"weight": torch.zeros(0, WIDTH)}, "expected hidden"),
        ({"labels": torch.zeros(5, dtype=torch.long)}, "one token id"),
        ({"labels": torch.zeros(6)}, "one token id"),
        ({"labels": torch.zeros(6, dtype=torch.bool)}, "one token id"),
        ({"labels": torch.full((6,), WORDS)}, "labels must be in"),
        ({"labels": torch.full((6,), -1)}, "labels must be in"),
        ({"bias": normal(3)}, "expected bias"),
        ({"weight": torch.ones(WORDS, WIDTH, dtype=torch.long)}, "floating point"),
        ({"weight": torch.ones(WORDS, WIDTH, device="meta")}, "one device"),
        ({"temperature": 0.0}, "temperature and memory"),
        ({"temperature": math.nan}, "temperature and memory"),
        ({"memory": 0}, "temperature and memory"),
    ],
)
def test_bad_input_is_refused_with_the_reason(change: dict[str, Any], message: str) -> None:
    hidden, weight, labels, _ = layer(6, dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        linear_log_prob(**{"hidden": hidden, "weight": weight, "labels": labels, **change})


def test_the_reason_is_said() -> None:
    hidden, weight, *_ = layer(6, dtype=torch.float16)
    assert "on cpu" in str(reason(hidden, weight)) and "the weight is" in str(reason(hidden, weight.float()))
    assert "float64" in str(reason(hidden.double(), weight.double()))
