"""The images of a suite: drawn where they are missing, batch by batch, by any number of processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffalign.commands._drawing import Sample, drawn_images
from diffalign.commands._suite_layout import find, find_sheets, planned, some
from diffalign.commands._suite_parts import Part
from diffalign.data.folders import CAPTIONS, SAMPLES

if TYPE_CHECKING:
    from torch import Tensor

    from diffalign.models import Adapter


class Shot(NamedTuple):
    """One image of a suite.

    Attributes:
        part: number of its part.
        line: number of its line within the part.
        copy: number among the images of the line.
        file: where it is, within the folder of all images.
    """

    part: int
    line: int
    copy: int
    file: str


class Shots(NamedTuple):
    """The images that are there or will be, in the order of the suite; what is not as planned."""

    shots: list[Shot]
    missing: list[str]
    extra: list[str]


def plan_shots(parts: Sequence[Part], images_per_prompt: int) -> Shots:
    """Every image that is to be drawn."""
    shots = [
        Shot(p, i, j, part.inside(name))
        for p, part in enumerate(parts)
        for i, names in enumerate(planned(part.layout, part.lines, images_per_prompt))
        for j, name in enumerate(names)
    ]
    return Shots(shots, [], [])


def find_shots(parts: Sequence[Part], folder: Path, images_per_prompt: int) -> Shots:
    """The images of a folder that somebody else filled.

    Raises:
        ValueError: no such folder, images of other prompts, or none at all.
    """
    shots, missing, extra = [], [], []
    for p, part in enumerate(parts):
        place = folder / part.task
        sheets = find_sheets(part.suite.sheets, part.lines, place) if part.suite.sheets and place.is_dir() else None
        found = sheets or find(part.layout, part.lines, place, images_per_prompt)
        names = [(i, j, file) for i, files in enumerate(found.files) for j, file in enumerate(files)]
        shots += [Shot(p, i, j, part.inside(file)) for i, j, file in names]
        missing += [part.inside(name) for name in found.missing]
        extra += [part.inside(name) for name in found.extra]
    if not shots:
        form = some([part.inside(planned(part.layout, part.lines, 1)[0][0]) for part in parts])
        raise ValueError(f"{folder} holds no image of this suite; they are named like {form}")
    return Shots(shots, missing, extra)


def missing_batches(shots: Sequence[Shot], folder: Path, batch_size: int) -> list[Sequence[Shot]]:
    """Batches with an image that is not there yet.

    Batches are cut from the whole list and drawn whole, so that an image is the same to the last bit wherever a run was
    stopped and however many processes share it.
    """
    batches = [shots[start : start + batch_size] for start in range(0, len(shots), batch_size)]
    return [batch for batch in batches if any(not (folder / shot.file).is_file() for shot in batch)]


def draw(
    policy: Adapter, parts: Sequence[Part], batches: Sequence[Sequence[Shot]], folder: Path, seed: int, **options: Any
) -> Iterator[int]:
    """Draws batches and writes the images that are not there; yields the number of images after each batch.

    Args:
        policy: the model.
        parts: the suites with their prompts.
        batches: of `missing_batches`, those of this process.
        folder: of the images.
        seed: image number n of a part has the seed `seed + n`.
        **options: `guidance_scale`, `num_inference_steps`, `negative_prompt`, `images_per_prompt`.
    """
    images_per_prompt = options.pop("images_per_prompt")
    for batch in batches:
        samples = [
            Sample(s.line, s.copy, parts[s.part].lines[s.line]["prompt"], seed + s.line * images_per_prompt + s.copy)
            for s in batch
        ]
        drawn = drawn_images(policy, samples, batch_size=len(samples), progress=False, **options)
        for shot, (_, image) in zip(batch, drawn, strict=True):
            path = folder / shot.file
            if not path.is_file():
                _describe(path, parts[shot.part].lines[shot.line])
                save_whole(image, path)
        yield len(batch)


def save_whole(image: Tensor, path: Path) -> None:
    """An image `(3, H, W)` in [0, 1] as an 8-bit file that is there whole or not at all."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp{path.suffix}")
    pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(temporary)
    os.replace(temporary, path)


def _describe(path: Path, line: Any) -> None:
    """GenEval's metadata beside the images of one prompt; its own scripts read it."""
    if path.parent.name != SAMPLES or not path.parent.parent.name.isdigit():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({key: value for key, value in line.items() if key != "task"}, ensure_ascii=False, default=str)
    (path.parent.parent / CAPTIONS).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
