"""The trainer's roll-out and training iteration against the literal loop, side by side in one run.

    python benchmarks/system/race.py --model shapes-flow
    python benchmarks/system/race.py --model random-100m --images 8

Both sides do the same mathematics from the same seeds: the script compares final latents and gradients before it times
anything. It prints the medians over interleaved rounds, their ratios, and the counted model evaluations per image.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from literal_loop import Sample, roll_out, train

from diffalign.config import make_config
from diffalign.models import Adapter, load_policy, trainable_parameters
from diffalign.trainers import PolicyGradientTrainer

STEPS, A, CLIP = 6, 0.7, 1e-4
PROMPTS = ["a photo of a red circle", "a photo of two squares", "a photo of a blue triangle", "a photo of a ring"]


def random_100m() -> Adapter:
    """shapes-flow's pipeline around a random transformer of 100 M parameters."""
    from diffusers import SD3Transformer2DModel

    policy = load_policy("shapes-flow")
    config = dict(policy.denoiser.config) | {
        "num_layers": 12,
        "num_attention_heads": 9,
        "attention_head_dim": 64,
        "caption_projection_dim": 576,
    }
    torch.manual_seed(0)
    policy.pipeline.transformer = SD3Transformer2DModel.from_config(config).requires_grad_(False).eval()
    return policy


def make_trainer(policy: Adapter, images: int, folder: str) -> PolicyGradientTrainer:
    """Flow-GRPO without guidance or KL, one update per roll-out."""
    args = make_config(
        {
            "num_inference_steps": STEPS,
            "noise_level": A,
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
    """The flat gradient, which starts again at zero."""
    flat = torch.cat([p.grad.flatten() for p in trainer.parameters])
    for parameter in trainer.parameters:
        parameter.grad = None
    return flat


def ours_train(trainer: PolicyGradientTrainer, batch: Any) -> None:
    """The backward passes of one update."""
    feedback = trainer.feedback(batch)
    chunk = torch.arange(batch.spec.samples)
    for micro in batch.mine.values():
        for loss in trainer.losses(batch, micro, feedback, chunk):
            loss.backward()


def literal_rollout(trainer: PolicyGradientTrainer, batch: Any) -> list[Sample]:
    """The same samples one by one."""
    listed = batch.spec
    return [
        roll_out(trainer.policy, record["prompt"], seed, branch, trainer.args.seed, STEPS, A)
        for record, seed, branch in zip(listed.sample_records, listed.seeds, listed.branches, strict=True)
    ]


def literal_train(trainer: PolicyGradientTrainer, samples: list[Sample], advantages: torch.Tensor) -> None:
    """The same update one image at a time."""
    share = 1 / (len(samples) * (STEPS - 1))
    for sample, advantage in zip(samples, advantages.tolist(), strict=True):
        train(trainer.policy, sample, advantage, STEPS, A, CLIP, share)


def check_same(trainer: PolicyGradientTrainer) -> tuple[Any, list[Sample]]:
    """Both sides reach the same latents and the same gradient."""
    batch = trainer.collect(0)
    samples = literal_rollout(trainer, batch)
    final = torch.zeros(len(samples), *trainer.policy.latent_shape)
    for micro in batch.mine.values():
        final[micro.rows] = micro.trajectory.x
    worst = float((final - torch.cat([s.states[-1] for s in samples])).abs().max())
    ours_train(trainer, batch)
    mine = gradients(trainer)
    literal_train(trainer, samples, trainer.feedback(batch).values)
    theirs = gradients(trainer)
    relative = float((mine - theirs).norm() / theirs.norm())
    if worst > 1e-3 or relative > 1e-2:
        raise SystemExit(f"the two sides differ: latents by {worst:.2g}, gradients by {relative:.2g}")
    print(f"same mathematics: latents differ by {worst:.1e}, gradients by {relative:.1e} (relative)")
    return batch, samples


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["shapes-flow", "random-100m"], default="shapes-flow")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    policy = load_policy("shapes-flow") if options.model == "shapes-flow" else random_100m()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(policy, options.images, folder)
        size = sum(p.numel() for p in policy.denoiser.parameters()) - sum(
            p.numel() for p in trainable_parameters(policy)
        )
        print(
            f"{options.model}: {size / 1e6:.1f} M parameters, {options.images} images, {STEPS} steps, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
        )
        batch, samples = check_same(trainer)
        advantages = trainer.feedback(batch).values
        times: dict[str, list[float]] = {
            name: [] for name in ("ours roll", "literal roll", "ours train", "literal train")
        }
        for _ in range(options.rounds):
            times["ours roll"].append(seconds(lambda: trainer.collect(0)))
            times["literal roll"].append(seconds(lambda: literal_rollout(trainer, batch)))
            times["ours train"].append(seconds(lambda: ours_train(trainer, batch)))
            times["literal train"].append(seconds(lambda: literal_train(trainer, samples, advantages)))
        report(times, options.images)
        policy.meter.drain()
        collected = trainer.collect(0)
        with policy.meter.phase("train"):
            ours_train(trainer, collected)
        print(
            "model evaluations per image:", json.dumps({k: v / options.images for k, v in policy.meter.drain().items()})
        )


def report(times: dict[str, list[float]], images: int) -> None:
    """Medians, spread, and the ratio of each phase and of the iteration."""
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:14s} {1000 * middle / images:8.2f} ms/image   (min {min(values):.2f} s, max {max(values):.2f} s)")
    for phase in ("roll", "train"):
        pairs = zip(times[f"literal {phase}"], times[f"ours {phase}"], strict=True)
        print(f"ratio {phase}: {statistics.median(a / b for a, b in pairs):.2f}x")
    rounds = zip(*times.values(), strict=True)
    whole = [(b + d) / (a + c) for a, b, c, d in rounds]
    print(f"ratio iteration: {statistics.median(whole):.2f}x  (min {min(whole):.2f}, max {max(whole):.2f})")


if __name__ == "__main__":
    main()
