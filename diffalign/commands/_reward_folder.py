"""`diffalign rewards score`: a folder of images to a table of scores, and a sheet of the best and the worst."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from diffalign.commands._score_output import check_output, contact_sheet, sheet_path, write_scores
from diffalign.commands._tables import table
from diffalign.data.folders import Picture, read_folder

if TYPE_CHECKING:
    from torch import Tensor

    from diffalign.rewards import Reward

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Scores, writes, prints a summary; exit status 1 when nothing could be scored."""
    folder = Path(args.folder).resolve()
    output = Path(args.output) if args.output else folder.with_name(f"{folder.name}_scores.parquet")
    check_output(output, folder)
    pictures = read_folder(args.folder)
    rewards = _rewards(args, output)
    _check_captions(pictures, args.without_prompts, args.folder)
    rows = [_row(picture) for picture in pictures]
    bar = tqdm(total=len(pictures), desc="score", unit="image")
    for indices, images in _batches(pictures, args.batch_size):
        _score(rewards, [rows[i] for i in indices], None if images is None else images.to(args.device))
        bar.update(len(indices))
    bar.close()
    write_scores(output, rows, list(rewards))
    print(output)
    for name in rewards:
        if any(row[name] is not None for row in rows):
            path = sheet_path(output, name)
            contact_sheet(args.folder, rows, name, args.sheet).save(path)
            print(path)
    print(_summary(rows, list(rewards)))
    return 0 if any(row[name] is not None for row in rows for name in rewards) else 1


def _rewards(args: argparse.Namespace, output: Path) -> dict[str, Reward]:
    """Rewards by name; scores are kept beside the output, so that a run that was cut off goes on."""
    from diffalign.rewards import prepare

    arguments = yaml.safe_load(args.reward_kwargs or "{}")
    if not isinstance(arguments, dict) or not all(isinstance(value, dict) for value in arguments.values()):
        raise ValueError(f"--reward_kwargs {args.reward_kwargs!r} must be like '{{clip: {{scaling: cosine}}}}'")
    rewards = prepare(args.reward_funcs, arguments, cache=str(output.with_suffix(".sqlite")))
    compare = [name for name, reward in rewards.items() if reward.scope != "pointwise"]
    if compare:
        raise ValueError(f"{', '.join(compare)} compares images of one prompt; a folder is scored image by image")
    for reward in rewards.values():
        reward.to(args.device)
    return rewards


def _check_captions(pictures: list[Picture], without: bool, folder: str) -> None:
    bare = [picture.file for picture in pictures if picture.prompt is None]
    if bare and not without:
        raise ValueError(
            f"{len(bare)} of {len(pictures)} images in {folder} have no prompt, first {bare[0]!r}: write a "
            "metadata.jsonl with file_name and prompt, or a .txt beside each image; --without_prompts scores them all"
        )


def _row(picture: Picture) -> dict[str, Any]:
    return {"file": picture.file, "prompt": picture.prompt or "", "metadata": picture.metadata}


def _batches(pictures: list[Picture], size: int) -> Iterator[tuple[list[int], Tensor | None]]:
    """Positions and images `(n, 3, H, W)` of neighbours of one size; None for an image that cannot be read."""
    import torch

    positions: list[int] = []
    images: list[Tensor] = []
    for position, picture in enumerate(pictures):
        image = _read(picture.path)
        if images and (len(images) == size or image is None or image.shape != images[0].shape):
            yield positions, torch.stack(images)
            positions, images = [], []
        if image is None:
            yield [position], None
        else:
            positions, images = [*positions, position], [*images, image]
    if images:
        yield positions, torch.stack(images)


def _read(path: Path) -> Tensor | None:
    """One image `(3, H, W)` in [0, 1], turned as its EXIF says; None, and a warning, where it is broken."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        logger.warning("%s cannot be read (%s): it has no score", path, error)
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _score(rewards: dict[str, Reward], rows: list[dict[str, Any]], images: Tensor | None) -> None:
    """Fill in the scores of some rows, None where there is none."""
    import torch

    from diffalign.rewards import score

    if images is None:
        rows[0].update(dict.fromkeys(rewards), height=None, width=None)
        return
    with torch.no_grad():
        found = score(rewards, images, [row["prompt"] for row in rows], [row["metadata"] for row in rows])
    for name, values in found.items():
        for row, value in zip(rows, values.tolist(), strict=True):
            row[name] = None if value != value else value
            row["height"], row["width"] = images.shape[2:]


def _summary(rows: list[dict[str, Any]], names: list[str]) -> str:
    import torch

    lines = []
    for name in names:
        values = torch.tensor([row[name] for row in rows if row[name] is not None], dtype=torch.float64)
        numbers = [values.mean(), values.std(correction=0), values.min(), values.max()] if len(values) else []
        lines.append([name, str(len(values)), str(len(rows) - len(values)), *(f"{float(x):.4g}" for x in numbers)])
    head = ["reward", "scored", "failed", "mean", "std", "lowest", "highest"]
    return table(head, [line + ["-"] * (len(head) - len(line)) for line in lines])
