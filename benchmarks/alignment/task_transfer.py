"""What an update on one task's prompts does for another task: products of gradients.

``python benchmarks/alignment/task_transfer.py --config shapes-flow/quickstart --rollouts 40``, with any
``--key value`` of the configuration, as for ``diffalign train``; `train_dataset` and `task_weights` are set here.

Gradients of ``--rollouts`` rollouts of the untrained policy, of each task of the training and of the held-out prompts.
Rows are training tasks, columns tasks of either split. A cell is the mean product of independent gradients of its row
and its column, divided by the noise of both: on the diagonal S^2 / N^2 (`gradient_signal.py`), elsewhere what the other
task gains by a step of the row's (below 0: loses), in units of noise. A row's `noise` is what its images bring into
every step that they share with others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from gradient_signal import gradient, signal_and_noise  # noqa: E402

from diffalign.commands._run_options import add_run_options, config_from  # noqa: E402
from diffalign.config import RunConfig, changed  # noqa: E402
from diffalign.evaluation.geneval_prompts import TAGS  # noqa: E402
from diffalign.trainers import Trainer  # noqa: E402

SPLITS = ("train", "heldout")


def gradients(config: RunConfig, task: str, split: str, rollouts: int) -> Tensor:
    """(rollouts, D) gradients on the prompts of one task and split."""
    weights = {tag: float(tag == task) for tag in TAGS}
    with tempfile.TemporaryDirectory() as folder:
        args = changed(config, train_dataset=f"shapes:{split}", task_weights=weights, output_dir=folder)
        trainer = Trainer(args=changed(args, overwrite_output_dir=True))
        return torch.stack([gradient(trainer, index) for index in range(rollouts)])


def moments(stacks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Products (T, T) of the true gradients of T stacks (M, D), each pair of rollouts independent, and noises (T,)."""
    signal, noise = torch.zeros(len(stacks), len(stacks)), torch.zeros(len(stacks))
    for (i, one), (j, other) in product(enumerate(stacks), repeat=2):
        products = one.double() @ other.double().T
        signal[i, j] = products.mean()
        if i == j:
            signal[i, i], square = signal_and_noise(products)
            noise[i] = square.sqrt()
    return signal, noise


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--rollouts", type=int, default=40, help="independent rollouts per task and split, at least 2")
    add_run_options(parser, "train")
    parser.usage, parser.description = None, __doc__
    args = parser.parse_args()
    if args.rollouts < 2:
        parser.error(f"--rollouts {args.rollouts}: a product of independent gradients needs at least 2")
    config = config_from(args)
    cells = list(product(SPLITS, TAGS))
    signal, noise = moments([gradients(config, task, split, args.rollouts) for split, task in cells])
    table = signal / noise[:, None] / noise[None, :]
    print(" ".join(sys.argv[1:]))
    print("task".ljust(16) + "".join(f"{split[:5]}/{task[:8]}".rjust(15) for split, task in cells) + "noise".rjust(12))
    for i, task in enumerate(TAGS):
        print(task.ljust(16) + "".join(f"{value:15.3f}" for value in table[i].tolist()) + f"{noise[i]:12.2e}")


if __name__ == "__main__":
    main()
