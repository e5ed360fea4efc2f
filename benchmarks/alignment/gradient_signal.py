"""How much of a recipe's gradient is signal.

``python benchmarks/alignment/gradient_signal.py --config shapes-flow/flow_grpo --rollouts 16``, with any
``--key value`` of the configuration, as for ``diffalign train``.

Gradients of independent rollouts of the untrained policy agree in the true gradient and in nothing else: the mean
product of two of them is S^2, the squared length of the signal, and the mean square of one is S^2 + N^2. S^2 / N^2 says
how far one update points the right way; its inverse is about the number of rollouts that an update would need. A
method may also agree with itself on something that is not the reward: compare the figure with what a run gains.
``--by_layer``, with ``--lora_r 0``, says where the signal is: one figure per kind of weight, over all blocks.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffalign.commands._run_options import add_run_options, config_from  # noqa: E402
from diffalign.config import changed  # noqa: E402
from diffalign.trainers import Trainer  # noqa: E402
from diffalign.trainers.base import BaseTrainer  # noqa: E402
from diffalign.trainers.run.batch import as_one_update  # noqa: E402


def signal_and_noise(products: Tensor) -> tuple[Tensor, Tensor]:
    """S^2 and N^2 from the products (M, M) of M >= 2 independent gradients; N^2 >= 0, S^2 of either sign."""
    m, squares = len(products), products.trace()
    signal = (products.sum() - squares) / (m * (m - 1))
    return signal, squares / m - signal


def signal_to_noise(gradients: Tensor) -> tuple[float, float]:
    """S^2 / N^2 of gradients (M, D) of M >= 3 independent rollouts, and its standard error by the jackknife."""
    products = gradients.double() @ gradients.double().T
    count = len(products)

    def ratio(kept: Tensor) -> Tensor:
        signal, noise = signal_and_noise(products[kept][:, kept])
        return signal / noise

    everyone = torch.arange(count)
    without = torch.stack([ratio(everyone[everyone != i]) for i in range(count)])
    error = ((count - 1) / count * (without - without.mean()).square().sum()).sqrt()
    return float(ratio(everyone)), float(error)


def gradient(trainer: BaseTrainer, index: int) -> Tensor:
    """Gradient (D,) of one update on all samples of rollout ``index``; the weights stay."""
    trainer.state.step = index  # the noise of a forward process is drawn by step
    batch = trainer.prepare(trainer.collect(index))
    trainer.backward(batch, as_one_update(batch))
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.parameters]
    flat = torch.cat([part.flatten() for part in parts])
    for parameter in trainer.parameters:
        parameter.grad = None
    return flat


def by_layer(trainer: BaseTrainer, gradients: Tensor) -> dict[str, tuple[float, float]]:
    """`signal_to_noise` of each kind of trained weight, most certain first; one figure for all blocks."""
    columns: dict[str, list[Tensor]] = {}
    named = [(name, p) for name, p in trainer.policy.denoiser.named_parameters() if p.requires_grad]
    for (name, _), part in zip(named, gradients.split([p.numel() for _, p in named], 1), strict=True):
        columns.setdefault(re.sub(r"\.\d+\.", ".", name), []).append(part)
    found = {kind: signal_to_noise(torch.cat(parts, 1)) for kind, parts in columns.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1][0] / item[1][1]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--rollouts", type=int, default=16, help="independent rollouts, at least 3")
    parser.add_argument("--by_layer", action="store_true", help="one figure per kind of weight as well")
    add_run_options(parser, "train")
    parser.usage, parser.description = None, __doc__
    args = parser.parse_args()
    if args.rollouts < 3:
        parser.error(f"--rollouts {args.rollouts}: the error of the ratio needs at least 3")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(args=changed(config_from(args), output_dir=folder, overwrite_output_dir=True))
        start = time.process_time()
        gradients = torch.stack([gradient(trainer, index) for index in range(args.rollouts)])
        seconds = (time.process_time() - start) / args.rollouts
        layers = by_layer(trainer, gradients) if args.by_layer else {}
    for kind, (ratio, error) in layers.items():
        print(f"{kind:60s} {ratio:.4f} +- {error:.4f}")
    ratio, error = signal_to_noise(gradients)
    print(f"{' '.join(sys.argv[1:])}: S^2/N^2 {ratio:.4f} +- {error:.4f} per rollout, {seconds:.2f} CPU-seconds each")


if __name__ == "__main__":
    main()
