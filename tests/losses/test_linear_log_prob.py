"""The tiled log-prob is the plain one: values, gradients, types; and it takes a fraction of the memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.losses.linear_log_prob import linear_log_prob

module = import_module("diffalign.losses.linear_log_prob")  # by its path: the package may export the function

ROOT = Path(__file__).resolve().parents[2]
F64 = torch.float64
TINY = 12 * 4096  # tiles of a few columns: several of them, the last one narrower


def plain(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None, temperature: float = 1) -> Tensor:
    """What is to be computed, by torch's own functions."""
    z = torch.nn.functional.linear(hidden, weight, bias)
    z = (z if z.dtype == F64 else z.float()) / temperature
    return z.log_softmax(-1).gather(-1, labels[..., None])[..., 0]


def layer(*shape: int, words: int = 11, width: int = 3, dtype: torch.dtype = F64) -> tuple[Tensor, ...]:
    """Random hidden states of a shape, weight, labels and bias."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(*shape, width, generator=generator, dtype=F64)
    weight = torch.randn(words, width, generator=generator, dtype=F64)
    labels = torch.randint(words, shape, generator=generator)
    bias = torch.randn(words, generator=generator, dtype=F64)
    return hidden.to(dtype), weight.to(dtype), labels, bias.to(dtype)


def gradients(f: Callable[..., Tensor], hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor) -> list[Tensor]:
    """Of a sum with unequal weights, so that a mistaken row shows."""
    leaves = [x.detach().clone().requires_grad_() for x in (hidden, weight, bias)]
    out = f(leaves[0], leaves[1], labels, bias=leaves[2])
    coefficients = torch.arange(1, out.numel() + 1, dtype=out.dtype).reshape(out.shape)
    return list(torch.autograd.grad((out * coefficients).sum(), leaves))


@pytest.mark.parametrize("memory", [1, 12 * 20 * 4, 12 * 20 * 11, 2**20])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_the_plain_form(memory: int, temperature: float) -> None:
    data = layer(4, 5)
    tiled = lambda *a, **k: linear_log_prob(*a, **k, memory=memory, temperature=temperature)  # noqa: E731
    same = lambda *a, **k: plain(*a, **k, temperature=temperature)  # noqa: E731
    assert torch.allclose(tiled(*data[:3], bias=data[3]), same(*data), rtol=0, atol=1e-13)
    for ours, theirs in zip(gradients(tiled, *data), gradients(same, *data), strict=True):
        assert ours.dtype == F64
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_rows_are_tiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 3)
    data = layer(10)
    for ours, theirs in zip(
        gradients(lambda *a, **k: linear_log_prob(*a, **k, memory=12 * 3 * 2), *data),
        gradients(plain, *data),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("memory", "largest"), [(12 * 10 * 4, 40), (12 * 10 * 4 - 1, 30), (1, 10), (2**20, 110)])
def test_tiles_keep_to_the_memory(monkeypatch: pytest.MonkeyPatch, memory: int, largest: int) -> None:
    seen: list[int] = []
    logits = module._Layer.logits

    def spy(*args: Any) -> Tensor:
        seen.append(logits(*args).numel())
        return logits(*args)

    monkeypatch.setattr(module._Layer, "logits", spy)
    linear_log_prob(*layer(10)[:3], memory=memory)
    assert max(seen) == largest and sum(seen) == 110


def test_the_defaults_are_a_tile_of_4096_tokens_in_128_mib() -> None:
    rows, columns = module._tiles(torch.empty(10_000, 1), torch.empty(5_000, 1), 128 * 2**20)
    assert [s.stop - s.start for s in rows] == [4096, 4096, 1808]
    assert [s.stop - s.start for s in columns] == [2730, 2270]
    defaults = linear_log_prob.__kwdefaults__
    assert defaults == {"bias": None, "temperature": 1.0, "ignore_index": -100, "memory": 128 * 2**20}


def test_gradcheck() -> None:
    hidden, weight, labels, bias = layer(2, 3, words=5)
    labels[0, 1] = -100

    def f(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_log_prob(hidden, weight, labels, bias=bias, temperature=1.3, memory=12 * 5 * 2)

    assert torch.autograd.gradcheck(f, tuple(x.requires_grad_() for x in (hidden, weight, bias)))


def test_two_words_by_hand() -> None:
    hidden, weight = torch.tensor([[2.0]], dtype=F64), torch.tensor([[0.5], [0.0]], dtype=F64)
    (value,) = linear_log_prob(hidden, weight, torch.tensor([0]))
    assert value.item() == pytest.approx(-math.log1p(math.exp(-1)), abs=1e-15)
    (value,) = linear_log_prob(hidden, weight, torch.tensor([1]), temperature=0.5)
    assert value.item() == pytest.approx(-math.log1p(math.exp(2)), abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_as_near_to_the_truth_as_the_plain_form(dtype: torch.dtype) -> None:
    data = layer(64, words=500, width=32, dtype=dtype)
    wide = [x.double() if x.is_floating_point() else x for x in data]
    tiled = lambda *a, **k: linear_log_prob(*a, **k, memory=12 * 64 * 90)  # noqa: E731
    truth, ours, theirs = plain(*wide), tiled(*data[:3], bias=data[3]), plain(*data)
    assert ours.dtype == torch.float32
    assert (ours - truth).abs().max() <= 1.5 * (theirs - truth).abs().max() + 1e-5
    sides = zip(gradients(tiled, *data), gradients(plain, *data), gradients(plain, *wide), strict=True)
    for ours, theirs, truth in sides:
        assert ours.dtype == dtype
        assert (ours - truth).norm() <= 1.2 * (theirs - truth).norm() + 1e-6 * truth.norm()


def test_the_gradient_of_the_weight_is_summed_before_it_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 1)
    data = layer(3000, words=4, width=1, dtype=torch.bfloat16)
    data = (torch.ones_like(data[0]), torch.zeros_like(data[1]), torch.zeros_like(data[2]), torch.zeros_like(data[3]))
    weight = data[1].requires_grad_()
    linear_log_prob(data[0], weight, data[2]).sum().backward()
    assert weight.grad is not None and weight.grad[0].item() == pytest.approx(2250, rel=4e-3)


def test_a_weight_of_another_type_is_taken_as_the_hidden_states_are() -> None:
    hidden, weight, labels, bias = layer(6, dtype=torch.float32)
    weight = weight.to(torch.bfloat16).requires_grad_()
    out = linear_log_prob(hidden, weight, labels, bias=bias)
    assert torch.allclose(out, plain(hidden, weight.float(), labels, bias), atol=1e-6)
    out.sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.bfloat16


def test_autocast_changes_nothing() -> None:
    hidden, weight, labels, bias = layer(7, dtype=torch.float32)

    def run() -> tuple[Tensor, Tensor]:
        leaf = hidden.clone().requires_grad_()
        out = linear_log_prob(leaf, weight, labels, bias=bias)
        return out, torch.autograd.grad(out.sum(), leaf)[0]

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run()
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_what_is_ignored_takes_no_part() -> None:
    hidden, weight, labels, bias = layer(3, 4)
    poisoned, cut = hidden.clone(), labels.clone()
    poisoned[1, 2:], cut[1, 2:] = torch.nan, -100
    leaf, w = poisoned.requires_grad_(), weight.clone().requires_grad_()
    out = linear_log_prob(leaf, w, cut, bias=bias)
    expected = plain(hidden, weight, labels, bias)
    expected[1, 2:] = 0
    assert torch.allclose(out, expected, atol=1e-13)
    out.sum().backward()
    assert leaf.grad is not None and w.grad is not None
    assert not leaf.grad[1, 2:].any() and leaf.grad.isfinite().all() and w.grad.isfinite().all()


def test_another_label_may_mark_what_is_ignored() -> None:
    hidden, weight, labels, _ = layer(6)
    labels[:] = torch.tensor([0, 3, 0, 1, 2, 0])
    out = linear_log_prob(hidden, weight, labels, ignore_index=0)
    assert (out == 0).tolist() == [True, False, True, False, False, True]


def test_nothing_valid_is_zero_with_a_gradient_of_zero() -> None:
    hidden, weight, labels, _ = layer(2, 3)
    leaf = hidden.requires_grad_()
    out = linear_log_prob(leaf, weight, torch.full_like(labels, -100))
    out.sum().backward()
    assert out.shape == (2, 3) and not out.any()
    assert leaf.grad is not None and not leaf.grad.any()


@pytest.mark.parametrize("scale", [50.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(scale: float, dtype: torch.dtype) -> None:
    hidden, weight, labels, bias = layer(8, dtype=dtype)
    for x in gradients(linear_log_prob, hidden * scale, weight, labels, bias):
        assert x.isfinite().all()
    assert linear_log_prob(hidden * scale, weight, labels).isfinite().all()


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_only_what_learns_gets_a_gradient(frozen: int) -> None:
    hidden, weight, labels, bias = layer(5)
    leaves = [x.requires_grad_(i != frozen) for i, x in enumerate((hidden, weight, bias))]
    linear_log_prob(leaves[0], leaves[1], labels, bias=leaves[2]).sum().backward()
    assert [x.grad is not None for x in leaves] == [i != frozen for i in range(3)]
    expected = gradients(lambda *a, **k: plain(*a, **k) / torch.arange(1, 6), hidden, weight, labels, bias)
    for i, x in enumerate(leaves):
        assert i == frozen or torch.allclose(x.grad, expected[i], atol=1e-12)


def test_it_is_differentiated_once() -> None:
    hidden, weight, labels, _ = layer(3)
    square = (linear_log_prob(hidden.requires_grad_(), weight, labels) ** 2).sum()
    (grad,) = torch.autograd.grad(square, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


def test_a_batch_is_the_sum_of_its_parts() -> None:
    hidden, weight, labels, _ = layer(4, 5)
    whole = linear_log_prob(hidden, weight, labels)
    rows = torch.stack([linear_log_prob(h, weight, y) for h, y in zip(hidden, labels, strict=True)])
    assert torch.allclose(whole, rows, atol=1e-14)
    order = torch.tensor([3, 1, 0, 2])
    assert torch.allclose(linear_log_prob(hidden[order], weight, labels[order]), whole[order], atol=1e-14)


def test_all_words_together_have_probability_one() -> None:
    hidden, weight, _, bias = layer(1)
    each = linear_log_prob(hidden.expand(11, 3), weight, torch.arange(11), bias=bias, memory=TINY)
    assert each.exp().sum().item() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": torch.zeros(2, 4)}, "hidden \\(2, 4\\), weight \\(11, 3\\)"),
        ({"hidden": torch.zeros(3, 3)}, "labels \\(2,\\)"),
        ({"hidden": torch.zeros(2, 3, dtype=torch.long)}, "hidden must be of a floating type"),
        ({"weight": torch.zeros(3)}, "expected hidden"),
        ({"weight": torch.zeros(11, 3, dtype=torch.int8)}, "weight must be of a floating type"),
        ({"bias": torch.zeros(10)}, "bias \\(10,\\)"),
        ({"labels": torch.zeros(2)}, "of an integer type"),
        ({"labels": torch.zeros(2, dtype=torch.bool)}, "of an integer type"),
        ({"labels": torch.tensor([0, 11])}, "got 0 to 11"),
        ({"labels": torch.tensor([-1, 10])}, "got -1 to 10"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"memory": 0}, "memory must be positive"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    given = {"hidden": torch.zeros(2, 3), "weight": torch.zeros(11, 3), "labels": torch.tensor([0, 10])}
    linear_log_prob(**given)
    with pytest.raises(ValueError, match=said):
        linear_log_prob(**{**given, **change})


def measured(*words: str) -> list[dict[str, Any]]:
    """What the benchmark prints."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "system" / "linear_log_prob.py", "--json", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_memory_is_a_fraction_of_the_plain_form_at_a_small_size() -> None:
    words = ("--tokens", "1024", "--hidden", "64", "--words", "32768", "--dtype", "float32")
    (row,) = measured(*words)
    assert row["plain_mib"] > 250  # logits and softmax are 128 MiB each
    assert row["ratio"] > 2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_is_a_fifth_of_the_plain_form(dtype: str) -> None:
    (row,) = measured("--dtype", dtype)
    assert (row["tokens"], row["hidden"], row["words"]) == (4096, 1024, 131072)
    assert row["ratio"] >= 5
    assert row["gap"] < (1e-4 if dtype == "float32" else 0.1)
