"""`diffalign generate`: images of prompts, in the folder layout that GenEval reads."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffalign.commands._model_options import add_model_options, load_model
from diffalign.commands._options import expanded_path, positive
from diffalign.data import Record, read_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from diffalign.models import Adapter

HELP = "draw images of prompts"
OVERVIEW = 64
"""Images on the sheet at the top of the folder."""
WIDEST = 8
"""Images in a row of a sheet."""


class Sample(NamedTuple):
    """One image to draw."""

    line: int
    copy: int
    prompt: str
    seed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds prompts, sampling and output."""
    parser.add_argument("prompt", nargs="*", help="prompts, one word group each (quote them)")
    parser.add_argument(
        "--prompts",
        type=expanded_path,
        metavar="FILE",
        help="shapes:heldout, shapes:train, a .txt or a .jsonl of prompts",
    )
    parser.add_argument("--max_prompts", type=positive, help="use only the first n prompts")
    parser.add_argument(
        "--output", type=expanded_path, default="generated", metavar="FOLDER", help="folder that the images go to"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that holds images already")
    group = parser.add_argument_group("sampling")
    group.add_argument("--images_per_prompt", type=positive, default=4, help="images per prompt")
    group.add_argument("--seed", type=int, default=0, help="seed of the first image; the others count up from it")
    group.add_argument("--guidance_scale", type=float, default=2.0, help="1 = the conditional branch alone")
    group.add_argument("--num_inference_steps", type=positive, default=20, help="deterministic steps")
    group.add_argument("--negative_prompt", default="", help="text of the unconditional branch")
    group.add_argument("--batch_size", type=positive, default=16, help="images per forward")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the images; prints where they are."""
    records = _records(args)
    folder = _prepare(Path(args.output), args.overwrite)
    policy = load_model(args, lora=args.lora)
    samples = plan_samples(records, args.images_per_prompt, args.seed)
    sheet = _draw(args, policy, records, samples, folder)
    _grid(sheet, folder / "grid.png", args.images_per_prompt)
    print(f"{len(samples)} images of {len(records)} prompts in {folder}; overview: {folder / 'grid.png'}")
    return 0


def plan_samples(records: list[Record], images_per_prompt: int, seed: int) -> list[Sample]:
    """One sample per image; image j of line i has the seed `seed + i * images_per_prompt + j`, in diffusers' sense."""
    return [
        Sample(i, j, record["prompt"], seed + i * images_per_prompt + j)
        for i, record in enumerate(records)
        for j in range(images_per_prompt)
    ]


def _records(args: argparse.Namespace) -> list[Record]:
    if bool(args.prompt) == bool(args.prompts):
        raise ValueError("give prompts as arguments or a file by --prompts, one of the two")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed} must not be negative")
    if args.prompts:
        return read_prompts(args.prompts)[: args.max_prompts]
    return [Record(prompt=text, metadata={}) for text in args.prompt][: args.max_prompts]


def _prepare(folder: Path, overwrite: bool) -> Path:
    if (folder / "00000").exists() and not overwrite:
        raise ValueError(f"{folder} holds images already; give another --output, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _draw(
    args: argparse.Namespace, policy: Adapter, records: list[Record], samples: list[Sample], folder: Path
) -> list[Tensor]:
    """Writes every image and, for each finished prompt, its grid; returns the first images for the overview."""
    sheet: list[Tensor] = []
    current: list[Tensor] = []
    for sample, image in _images(args, policy, samples):
        target = folder / f"{sample.line:05d}"
        if sample.copy == 0:
            _describe(records[sample.line], target)
            current = []
        _save(image, target / "samples" / f"{sample.copy:04d}.png")
        current.append(image)
        if len(sheet) < OVERVIEW:
            sheet.append(image)
        if len(current) == args.images_per_prompt:
            _grid(current, target / "grid.png", args.images_per_prompt)
    return sheet


def _images(args: argparse.Namespace, policy: Adapter, samples: list[Sample]) -> Iterator[tuple[Sample, Tensor]]:
    """Each sample with its (3, height, width) image in [0, 1] on the CPU."""
    from tqdm import tqdm

    from diffalign.sampling import make_plan, ode, rollout

    plan = make_plan(ode(policy.schedule(args.num_inference_steps)), guidance=args.guidance_scale)
    with tqdm(total=len(samples), desc="generate", unit="image") as bar:
        for start in range(0, len(samples), args.batch_size):
            chunk = samples[start : start + args.batch_size]
            prompts, seeds = [one.prompt for one in chunk], [one.seed for one in chunk]
            images = rollout(policy, plan, prompts, seeds, negative_prompt=args.negative_prompt).images
            if images is None:
                raise RuntimeError("the roll-out returned no images")
            yield from zip(chunk, images.float().cpu(), strict=True)
            bar.update(len(chunk))


def _describe(record: Record, target: Path) -> None:
    """GenEval's metadata file of one prompt."""
    (target / "samples").mkdir(parents=True, exist_ok=True)
    text = json.dumps({**record["metadata"], "prompt": record["prompt"]}, ensure_ascii=False)
    (target / "metadata.jsonl").write_text(text + "\n", encoding="utf-8")


def _save(image: Tensor, path: Path) -> None:
    from PIL import Image

    pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(path)


def _grid(images: list[Tensor], path: Path, per_prompt: int) -> None:
    """Saves a sheet with one prompt a row where that fits, else eight images a row."""
    import torch

    from diffalign.report import image_grid

    columns = per_prompt if 1 < per_prompt <= WIDEST else min(WIDEST, len(images))
    image_grid(torch.stack(images), columns).save(path)
