"""The trainer's rollout and training pass against Flow-GRPO as research code writes it, at batch 1 and batched.

    OMP_NUM_THREADS=1 python benchmarks/system/race.py --model random-41m --images 8 --guidance 1 4.5

All sides compute the same from the same seeds: final latents and gradients are compared before anything is timed.
Printed are medians over interleaved rounds of process CPU time and of wall time, ratios by phase, and the model
evaluations that were counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.system.reference_loop import Samples, Settings, roll_out, train  # noqa: E402
from diffalign.models import Adapter, load_policy, trainable_parameters  # noqa: E402
from diffalign.trainers import PolicyGradientTrainer, make_config  # noqa: E402
from diffalign.trainers.run.batch import as_one_update  # noqa: E402

STEPS, NOISE_LEVEL, CLIP = 6, 0.7, 1e-4
TOLERANCE = 1e-3
"""Largest difference of final latents, and of gradients relative to their norm."""
PROMPTS = ["a photo of a red circle", "a photo of two squares", "a photo of a blue triangle", "a photo of a ring"]
RANDOM = {"random-41m": (8, 6), "random-141m": (12, 9)}
"""Layers and attention heads of width 64."""
Times = dict[str, list[tuple[float, float]]]


def load(name: str) -> Adapter:
    """shapes-flow, or its pipeline around a larger transformer with random weights."""
    from diffusers import SD3Transformer2DModel

    policy = load_policy("shapes-flow")
    if name != "shapes-flow":
        layers, heads = RANDOM[name]
        shape = {"num_layers": layers, "num_attention_heads": heads, "attention_head_dim": 64}
        config = dict(policy.denoiser.config) | shape | {"caption_projection_dim": 64 * heads}
        torch.manual_seed(0)
        policy.pipeline.transformer = SD3Transformer2DModel.from_config(config).requires_grad_(False).eval()
    return policy


def make_trainer(policy: Adapter, images: int, guidance: float, folder: str) -> PolicyGradientTrainer:
    """Flow-GRPO without KL, one update per rollout, gradient through both branches of the guidance."""
    args = make_config(
        {
            "num_inference_steps": STEPS,
            "noise_level": NOISE_LEVEL,
            "guidance_scale": guidance,
            "uncond_grad": True,
            "epsilon": CLIP,
            "num_generations": max(images // len(PROMPTS), 2),
            "prompts_per_rollout": len(PROMPTS),
            "updates_per_rollout": 1,
            "per_device_train_batch_size": images,
            "lora_r": 8,
            "output_dir": folder,
            "max_train_steps": 1,
            "eval_dataset": "none",
        }
    )

    def reward(pictures: Any, prompts: Any, metadata: Any) -> Any:
        return pictures[:, 0].mean((1, 2)) - pictures[:, 1].mean((1, 2))

    return PolicyGradientTrainer(policy, args, [reward], list(PROMPTS))


def gradients(trainer: PolicyGradientTrainer) -> torch.Tensor:
    """The flat gradient, which is reset."""
    flat = torch.cat([p.grad.flatten() for p in trainer.parameters])
    for parameter in trainer.parameters:
        parameter.grad = None
    return flat


def ours_train(trainer: PolicyGradientTrainer, batch: Any) -> None:
    """The backward passes of one update."""
    batch = trainer.prepare(batch)
    trainer.backward(batch, as_one_update(batch))


class Reference:
    """The reference loop on the samples of one of the trainer's batches.

    Args:
        trainer: Whose policy and settings it uses.
        batch: Whose prompts and seeds it repeats.
        size: Images per forward.
    """

    def __init__(self, trainer: PolicyGradientTrainer, batch: Any, size: int) -> None:
        self.policy, self.size = trainer.policy, size
        self.spec, self.advantages = batch.spec, trainer.prepare(batch).feedback.values
        args = trainer.args
        self.settings = Settings(STEPS, NOISE_LEVEL, args.guidance_scale, CLIP, args.seed)

    def roll_out(self) -> list[Samples]:
        """The same samples, batch by batch."""
        prompts = [record["prompt"] for record in self.spec.sample_records]
        lists = (prompts, list(self.spec.seeds), list(self.spec.branches))
        cuts = range(0, len(prompts), self.size)
        return [roll_out(self.policy, *(one[i : i + self.size] for one in lists), self.settings) for i in cuts]

    def train(self, samples: list[Samples]) -> None:
        """The same update."""
        for batch, advantages in zip(samples, self.advantages.split(self.size), strict=True):
            train(self.policy, batch, advantages, len(self.advantages), self.settings)


def check_same(trainer: PolicyGradientTrainer, batch: Any, reference: Reference) -> tuple[float, float]:
    """Differences of final latents (largest) and of gradients (relative norm).

    Raises:
        SystemExit: If one is above `TOLERANCE`: the sides would not do the same work.
    """
    samples = reference.roll_out()
    theirs_x = torch.cat([one.states[-1] for one in samples])
    ours_x = torch.zeros_like(theirs_x)
    for micro in batch.mine.values():
        ours_x[micro.rows] = micro.trajectory.x
    ours_train(trainer, batch)
    ours = gradients(trainer)
    reference.train(samples)
    theirs = gradients(trainer)
    latents, relative = float((ours_x - theirs_x).abs().max()), float((ours - theirs).norm() / theirs.norm())
    if max(latents, relative) > TOLERANCE:
        raise SystemExit(f"the sides differ: latents by {latents:.2g}, gradients by {relative:.2g} (relative)")
    return latents, relative


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(CPU seconds of the process, wall seconds) of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def race(trainer: PolicyGradientTrainer, rounds: int) -> Times:
    """Interleaved times of both phases of the three sides; the first round warms up and is dropped."""
    batch = trainer.collect(0)
    sides = {"batch 1": Reference(trainer, batch, 1), "batched": Reference(trainer, batch, batch.spec.samples)}
    for name, reference in sides.items():
        latents, relative = check_same(trainer, batch, reference)
        print(f"same as {name}: latents differ by {latents:.1e}, gradients by {relative:.1e} (relative)")
    kept = {name: reference.roll_out() for name, reference in sides.items()}
    times: Times = defaultdict(list)
    for _ in range(rounds + 1):
        times["ours rollout"].append(timed(lambda: trainer.collect(0)))
        times["ours training"].append(timed(lambda: ours_train(trainer, batch)))
        for name, reference in sides.items():
            times[f"{name} rollout"].append(timed(reference.roll_out))
            times[f"{name} training"].append(timed(lambda r=reference, s=kept[name]: r.train(s)))
        gradients(trainer)
    return {name: values[1:] for name, values in times.items()}


def report(times: Times, images: int) -> None:
    """Median per image of each phase, and ratios of CPU time to ours: median, lowest and highest round."""
    for name, values in times.items():
        cpu, wall = (1000 * statistics.median(column) / images for column in zip(*values, strict=True))
        print(f"{name:17s} {cpu:9.2f} ms CPU, {wall:9.2f} ms wall per image")
    for side in ("batch 1", "batched"):
        for phases in (("rollout",), ("training",), ("rollout", "training")):
            theirs, ours = (_cpu(times, name, phases) for name in (side, "ours"))
            ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
            print(f"{side} / ours, {' + '.join(phases)}: {_spread(ratios)}")


def _cpu(times: Times, side: str, phases: tuple[str, ...]) -> list[float]:
    """CPU seconds of every round, summed over phases."""
    return [sum(cpu for cpu, _ in row) for row in zip(*(times[f"{side} {phase}"] for phase in phases), strict=True)]


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["shapes-flow", *RANDOM], default="shapes-flow")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 4.5])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for guidance in options.guidance:
        policy = load(options.model)
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(policy, options.images, guidance, folder)
            adapted = sum(p.numel() for p in trainable_parameters(policy))
            size = sum(p.numel() for p in policy.denoiser.parameters()) - adapted
            print(
                f"{options.model}: {size / 1e6:.1f} M parameters, guidance {guidance:g}, {options.images} images, "
                f"{STEPS} steps, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
            )
            report(race(trainer, options.rounds), options.images)
            policy.meter.drain()
            batch = trainer.collect(0)
            with policy.meter.phase("train"):
                ours_train(trainer, batch)
            counted = {name: count / options.images for name, count in policy.meter.drain().items()}
            print("model evaluations per image:", json.dumps(counted))


if __name__ == "__main__":
    main()
