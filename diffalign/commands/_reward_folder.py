"""`diffalign rewards score`: a folder of images to a table of scores, and a sheet of the best and the worst."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from diffalign.commands._options import find_device, reward_arguments
from diffalign.commands._outputs import write_or_rescue
from diffalign.commands._score_output import Row, check_output, contact_sheet, sheet_path, write_scores
from diffalign.commands._tables import table

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffalign.data.folders import Picture
    from diffalign.rewards import Reward

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Scores, writes, prints a summary; exit status 1 when nothing could be scored."""
    from diffalign.data.folders import read_folder

    folder, device = Path(args.folder).resolve(), find_device(args.device)
    output = Path(args.output) if args.output else folder.with_name(f"{folder.name}_scores.parquet")
    pictures = read_folder(args.folder)
    _check_captions(pictures, args.without_prompts, args.folder)
    check_output(output, folder)
    rewards = _rewards(args, output, device)
    rows = [Row(picture) for picture in pictures]
    bar = tqdm(total=len(pictures), desc="score", unit="image")
    for some, images in _batches(rows, args.batch_size):
        _score(rewards, some, None if images is None else images.to(device))
        bar.update(len(some))
    bar.close()
    print(_summary(rows, list(rewards)))
    print(write_or_rescue(output, lambda path: write_scores(path, rows, list(rewards))))
    scored = [name for name in rewards if any(row.scores[name] is not None for row in rows)]
    for name in scored:
        print(write_or_rescue(sheet_path(output, name), partial(_save_sheet, rows, name, args.sheet)))
    return 0 if scored else 1


def _save_sheet(rows: list[Row], name: str, count: int, path: Path) -> None:
    contact_sheet(rows, name, count).save(path)


def _rewards(args: argparse.Namespace, output: Path, device: torch.device) -> dict[str, Reward]:
    """Rewards by name; scores are kept beside the output, so that a run that was cut off goes on."""
    from diffalign.rewards import prepare

    arguments = reward_arguments(args.reward_kwargs)
    rewards = prepare(args.reward_funcs, arguments, cache=str(output.with_suffix(".sqlite")))
    compare = [name for name, reward in rewards.items() if reward.scope != "pointwise"]
    if compare:
        raise ValueError(f"{', '.join(compare)} compares images of one prompt; a folder is scored image by image")
    for reward in rewards.values():
        reward.to(device)
    return rewards


def _check_captions(pictures: list[Picture], without: bool, folder: str) -> None:
    bare = [picture.file for picture in pictures if picture.prompt is None]
    if bare and not without:
        raise ValueError(
            f"{len(bare)} of {len(pictures)} images in {folder} have no prompt, first {bare[0]!r}: write a "
            "metadata.jsonl with file_name and prompt, or a .txt beside each image; --without_prompts scores them all"
        )


def _batches(rows: list[Row], size: int) -> Iterator[tuple[list[Row], Tensor | None]]:
    """Neighbours of one size with their images `(n, 3, H, W)`; None for an image that cannot be read."""
    import torch

    from diffalign.data.images import read_image

    batch: list[Row] = []
    images: list[Tensor] = []
    for row in rows:
        try:
            image = read_image(row.picture.path)
        except ValueError as error:
            logger.warning("%s: it has no score", error)
            yield [row], None
            continue
        if images and (len(images) == size or image.shape != images[0].shape):
            yield batch, torch.stack(images)
            batch, images = [], []
        batch.append(row)
        images.append(image)
    if images:
        yield batch, torch.stack(images)


def _score(rewards: dict[str, Reward], rows: list[Row], images: Tensor | None) -> None:
    """Fill in the scores of some rows, None where there is none."""
    import torch

    from diffalign.rewards import score

    if images is None:
        rows[0].scores = dict.fromkeys(rewards)
        return
    pictures = [row.picture for row in rows]
    with torch.no_grad():
        found = score(rewards, images, [one.prompt or "" for one in pictures], [one.metadata for one in pictures])
    for i, row in enumerate(rows):
        row.height, row.width = images.shape[2:]
        values = {name: float(values[i]) for name, values in found.items()}
        row.scores = {name: None if value != value else value for name, value in values.items()}


def _summary(rows: list[Row], names: list[str]) -> str:
    import torch

    lines = []
    for name in names:
        values = torch.tensor([row.scores[name] for row in rows if row.scores[name] is not None], dtype=torch.float64)
        numbers = [values.mean(), values.std(correction=0), values.min(), values.max()] if len(values) else []
        lines.append([name, str(len(values)), str(len(rows) - len(values)), *(f"{float(x):.4g}" for x in numbers)])
    head = ["reward", "scored", "failed", "mean", "std", "lowest", "highest"]
    return table(head, [line + ["-"] * (len(head) - len(line)) for line in lines])
