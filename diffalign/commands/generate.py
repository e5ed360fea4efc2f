"""`diffalign generate`: images of prompts, in the folder layout that GenEval reads."""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.commands._drawing import Sample, drawn_images, plan_samples
from diffalign.commands._image_folder import ImageFolder, planned_files, sample_file
from diffalign.commands._model_options import MODEL, add_model_options, load_model
from diffalign.commands._options import expanded_path, number, positive
from diffalign.commands._runs import MODEL_KEYS, fill_from_run, named_run
from diffalign.data import Record, read_prompts
from diffalign.data.text import decoded_name

if TYPE_CHECKING:
    from torch import Tensor

    from diffalign.models import Adapter

HELP = "draw images of prompts"
SAMPLING_KEYS = {"guidance_scale": "guidance_scale", "num_inference_steps": "num_inference_steps"}
SHIPPED = {"guidance_scale": 2.0, "num_inference_steps": 20}
"""Defaults for the checkpoints that come with the package; other pipelines have their own."""
OVERVIEW = 64
"""Images on the sheet at the top of the folder."""
WIDEST = 8
"""Images in a row of a sheet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds prompts, sampling and output."""
    parser.add_argument("prompt", nargs="*", help="prompts, one word group each (quote them)")
    parser.add_argument(
        "--prompts", type=expanded_path, metavar="FILE", help="shapes:heldout, shapes:train, a .txt or a .jsonl file"
    )
    parser.add_argument("--max_prompts", type=positive, help="use only the first n prompts")
    parser.add_argument(
        "--output", type=expanded_path, default="generated", metavar="FOLDER", help="folder that the images go to"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier call wrote into the folder")
    group = parser.add_argument_group("sampling")
    group.add_argument("--images_per_prompt", type=positive, default=4, help="images per prompt")
    group.add_argument("--seed", type=int, default=0, help="seed of the first image; the others count up from it")
    group.add_argument(
        "--guidance_scale", type=number,
        help="classifier-free guidance; at most 1: the conditional branch alone, one forward per step instead of two "
        "[the run's, else 2 for shipped checkpoints and the pipeline's own for others]",
    )  # fmt: skip
    group.add_argument(
        "--num_inference_steps", type=positive, help="deterministic steps [the run's, else 20 or the pipeline's own]"
    )
    group.add_argument("--negative_prompt", help="text of the unconditional branch [the run's, else empty]")
    group.add_argument("--batch_size", type=positive, default=16, help="images per forward")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the images; prints where they are."""
    records, trained = _records(args), named_run(args)
    fill_from_run(args, trained, MODEL_KEYS | SAMPLING_KEYS)
    folder = ImageFolder(Path(args.output), overwrite=args.overwrite)
    policy = load_model(args, trained)
    fill_from_pipeline(args, policy)
    samples = plan_samples(records, args.images_per_prompt, args.seed)
    sheet = _draw(args, policy, records, samples, folder)
    _grid(sheet, folder.path / "grid.png", args.images_per_prompt)
    print(f"{len(samples)} images of {len(records)} prompts in {folder.path}; overview: {folder.path / 'grid.png'}")
    return 0


def _records(args: argparse.Namespace) -> list[Record]:
    if bool(args.prompt) == bool(args.prompts):
        raise ValueError("give prompts as arguments or a file by --prompts, one of the two")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed} must not be negative")
    if args.prompts:
        return read_prompts(args.prompts)[: args.max_prompts]
    return [Record(prompt=decoded_name(text), metadata={}) for text in args.prompt][: args.max_prompts]


def fill_from_pipeline(args: argparse.Namespace, policy: Adapter) -> None:
    """Steps and guidance where neither an option nor a run says them: the defaults of the pipeline's own call."""
    from diffalign.models import shipped_names

    taken = []
    call = inspect.signature(policy.pipeline.__call__).parameters
    own = {key: (call[key].default if key in call else None) or value for key, value in SHIPPED.items()}
    for key, value in (SHIPPED if (args.model or MODEL) in shipped_names() else own).items():
        if getattr(args, key) is None:
            setattr(args, key, value)
            taken.append(f"{key} {value}")
    if taken:
        print(f"by default for {args.model or MODEL}: {', '.join(taken)}", flush=True)
    args.negative_prompt = args.negative_prompt or ""


def _draw(
    args: argparse.Namespace, policy: Adapter, records: list[Record], samples: list[Sample], folder: ImageFolder
) -> list[Tensor]:
    """Writes every image and, for each finished prompt, its grid; returns the first images for the overview.

    Earlier images are removed when the first new ones are there, so that a model that does not run costs nothing.
    """
    sheet: list[Tensor] = []
    current: list[Tensor] = []
    options = {
        key: getattr(args, key) for key in ("guidance_scale", "num_inference_steps", "negative_prompt", "batch_size")
    }
    for sample, image in drawn_images(policy, samples, **options):
        if sample is samples[0]:
            folder.begin(planned_files(len(records), args.images_per_prompt), _settings(args))
        target = folder.path / f"{sample.line:05d}"
        if sample.copy == 0:
            _describe(records[sample.line], target)
            current = []
        _save(image, folder.path / sample_file(sample.line, sample.copy))
        current.append(image)
        if len(sheet) < OVERVIEW:
            sheet.append(image)
        if len(current) == args.images_per_prompt:
            _grid(current, target / "grid.png", args.images_per_prompt)
    return sheet


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of the images, for the manifest."""
    from diffalign import __version__

    keys = "lora seed images_per_prompt guidance_scale num_inference_steps negative_prompt resolution dtype prompts"
    own = {key: decoded_name(value) if isinstance(value := getattr(args, key), str) else value for key in keys.split()}
    return {"diffalign": __version__, "model": decoded_name(args.model or MODEL), **own}


def _describe(record: Record, target: Path) -> None:
    """GenEval's metadata file of one prompt."""
    (target / "samples").mkdir(parents=True, exist_ok=True)
    text = json.dumps({**record["metadata"], "prompt": record["prompt"]}, ensure_ascii=False)
    (target / "metadata.jsonl").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


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
