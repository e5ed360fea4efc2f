"""Peak memory of token log-probs: `linear_log_prob` against linear, log-softmax, gather; each in a process of its own.

    python benchmarks/system/linear_log_prob.py
    python benchmarks/system/linear_log_prob.py --tokens 1024 --words 32768 --dtype bfloat16

Counted is the kernel's high-water mark of resident memory (VmHWM, reset after the inputs exist) during one forward and
backward, minus resident memory before, which holds the weight, and minus the weight's gradient. Linux only. Prints
both peaks, their ratio, the times, and how far apart loss and norms of the gradients are (relative). Medians of the
rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffalign.losses.linear_log_prob import linear_log_prob  # noqa: E402


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The form that has all logits."""
    return (hidden @ weight.T).float().log_softmax(-1).gather(-1, labels[:, None])[:, 0]


FORMS: dict[str, Callable[..., Tensor]] = {"plain": plain, "tiled": linear_log_prob}


def status(field: str) -> float:
    """A figure of this process in MiB: VmRSS or VmHWM."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def layer(options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """Random hidden states ``(N, H)``, weight ``(V, H)`` and labels."""
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    hidden = torch.randn(options.tokens, options.hidden).to(dtype).requires_grad_()
    weight = (torch.randn(options.words, options.hidden) / options.hidden**0.5).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(options.words, (options.tokens,))


def measure(form: str, options: argparse.Namespace) -> dict[str, Any]:
    """Peak, seconds, loss and norms of the gradients of one form, in this process."""
    hidden, weight, labels = layer(options)
    few = hidden[:2].detach().requires_grad_()
    FORMS[form](few, weight[:8].detach(), labels[:2] % 8).sum().backward()  # what torch sets up at its first call
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    start = time.perf_counter()
    loss = FORMS[form](hidden, weight, labels).mean()
    loss.backward()
    seconds = time.perf_counter() - start
    gradients = [x.grad for x in (hidden, weight) if x.grad is not None]
    peak = status("VmHWM") - before - gradients[1].numel() * gradients[1].element_size() / 2**20
    return {"mib": peak, "seconds": seconds, "figures": [loss.item(), *(float(x.float().norm()) for x in gradients)]}


def in_a_process(form: str, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a fresh interpreter."""
    words = [f"--{name}={getattr(options, name)}" for name in ("tokens", "hidden", "words")]
    words += [f"--dtype={dtype}", f"--form={form}"]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compare(dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both forms, one after the other, in each round."""
    rounds = [{form: in_a_process(form, dtype, options) for form in FORMS} for _ in range(options.rounds)]
    row: dict[str, Any] = {"dtype": dtype, **{k: getattr(options, k) for k in ("tokens", "hidden", "words", "rounds")}}
    for form in FORMS:
        for unit in ("mib", "seconds"):
            row[f"{form}_{unit}"] = statistics.median(r[form][unit] for r in rounds)
    row["ratio"] = row["plain_mib"] / row["tiled_mib"]
    figures = zip(rounds[0]["plain"]["figures"], rounds[0]["tiled"]["figures"], strict=True)
    row["gap"] = max(abs(a - b) / abs(a) for a, b in figures)
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--words", type=int, default=131072)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object for each type")
    parser.add_argument("--form", choices=list(FORMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        print(json.dumps(measure(options.form, options)))
        return
    for dtype in ["float32", "bfloat16"] if options.dtype == "both" else [options.dtype]:
        row = compare(dtype, options)
        text = (
            f"{dtype:8s} {row['tokens']} tokens x {row['words']} words: plain {row['plain_mib']:.0f} MiB "
            f"{row['plain_seconds']:.1f} s, tiled {row['tiled_mib']:.0f} MiB {row['tiled_seconds']:.1f} s, "
            f"{row['ratio']:.1f}x less; loss and gradients differ by {row['gap']:.1e}"
        )
        print(json.dumps(row) if options.json else text, flush=True)


if __name__ == "__main__":
    main()
