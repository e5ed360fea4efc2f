"""What both checkpoint trainers share: arguments, cached latents, EMA, the training loop, the held-out score."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from average import Average
from diffusers import AutoencoderKL
from pool import scene_pool
from torch import Tensor, nn

from diffalign.evaluation import geneval
from diffalign.shapes import detect, prompts

Generate = Callable[[Any, list[str], float, Tensor], Tensor]
"""(pipeline, prompts, guidance, noise) -> images in [0, 1]."""


def parse(doc: str | None, steps: int, rate: float) -> argparse.ArgumentParser:
    """The options that both trainers take."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--vae", required=True, help="folder that vae.py wrote")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--stop", type=int, help="end early, on the schedule of --steps")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pool", type=int, default=60000)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="file that keeps the encoded scenes between runs")
    parser.add_argument("--compile", action="store_true")
    return parser


def load_vae(folder: str) -> AutoencoderKL:
    """The autoencoder, without the name of the folder in what is saved from it."""
    vae = AutoencoderKL.from_pretrained(folder)
    vae.register_to_config(_name_or_path="")
    return vae


@torch.no_grad()
def latent_pool(vae: AutoencoderKL, count: int, seed: int, cache: Path | None = None) -> tuple[Tensor, list[str]]:
    """Scaled latents (N, 8, 8, 8) of ``count`` training scenes and their captions, from ``cache`` if it exists."""
    if cache and cache.exists():
        stored = torch.load(cache, weights_only=True)
        return stored["latents"], stored["captions"]
    images, captions = scene_pool(count, seed)
    scale = vae.config.scaling_factor
    with torch.autocast("cpu", torch.bfloat16):
        parts = [vae.encode(p.float() / 127.5 - 1).latent_dist.mode().float() * scale for p in images.split(250)]
    latents = torch.cat(parts)
    if cache:
        torch.save({"latents": latents, "captions": captions}, cache)
    return latents, captions


class Log:
    """Appends JSON lines to a file and prints them, with seconds since the start."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.start = path, time.time()

    def __call__(self, **record: object) -> None:
        """Writes one record."""
        text = json.dumps({"seconds": round(time.time() - self.start), **record})
        print(text, flush=True)
        with self.path.open("a") as file:
            file.write(text + "\n")


def heldout_score(pipe: Any, generate: Generate, guidance: float, repeats: int = 1) -> dict[str, Any]:
    """Held-out summary at one guidance scale, ``repeats`` images per line; the noise is the same in every call."""
    lines = prompts("heldout") * repeats
    noise = torch.randn(len(lines), 8, 8, 8, generator=torch.Generator().manual_seed(1234))
    texts = [line["prompt"] for line in lines]
    images = [generate(pipe, texts[i : i + 96], guidance, noise[i : i + 96]) for i in range(0, len(lines), 96)]
    found = detect(torch.cat(images))
    return geneval.summary(lines, [geneval.correct(d, line) for d, line in zip(found, lines, strict=True)])


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless shuffled index batches."""
    while True:
        yield from torch.randperm(count, generator=generator)[: count // size * size].split(size)


def learning_rate(step: int, total: int, peak: float, warm_up: int = 200) -> float:
    """Linear warm-up, then linear decay to a hundredth."""
    return peak * min(1.0, (step + 1) / warm_up) * max(0.01, 1 - step / total)


def fit(
    model: nn.Module,
    data: Tensor,
    args: argparse.Namespace,
    loss_of: Callable[[Tensor], Tensor],
    log: Log,
    every: int = 1000,
) -> Iterator[tuple[int, nn.Module]]:
    """Trains ``model`` with ``loss_of(indices into data)`` and yields (step, averaged model) after ``every`` steps."""
    average = Average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    picks = batches(len(data), args.batch, torch.Generator().manual_seed(args.seed))
    for step in range(args.stop or args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.rate)
        loss = loss_of(next(picks))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update()
        if (step + 1) % 100 == 0:
            log(step=step + 1, loss=round(loss.item(), 4))
        if (step + 1) % every == 0:
            yield step + 1, average.module


def snapshots(
    steps: Iterator[tuple[int, nn.Module]],
    pipeline: Callable[[Any], Any],
    generate: Generate,
    log: Log,
    scales: Sequence[float] = (2.0, 3.0),
) -> None:
    """Saves the averaged pipeline beside the log at every step that ``fit`` yields, and logs its held-out scores."""
    for step, average in steps:
        pipe = pipeline(average)
        pipe.save_pretrained(log.path.parent / f"step-{step}")
        for guidance in scales:
            result = heldout_score(pipe, generate, guidance)
            log(step=step, guidance=guidance, overall=result["overall"], tasks=result["tasks"])
