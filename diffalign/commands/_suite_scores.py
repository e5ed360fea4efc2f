"""The scores of a suite's images: read, judged in batches, shared out over processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffalign.commands._suite_images import Shot
from diffalign.commands._suite_parts import Part

if TYPE_CHECKING:
    from torch import Tensor

    from diffalign.evaluation.judges import Judges
    from diffalign.evaluation.suites import Outcome


class Scored(NamedTuple):
    """Outcomes by the number of the shot (NaN for files that cannot be read), and those files, with the reason."""

    outcomes: dict[int, Outcome]
    broken: dict[str, str]


def batches_of(shots: Sequence[Shot], batch_size: int) -> list[list[int]]:
    """Numbers of shots in batches of one part each, the same for any number of processes."""
    found: list[list[int]] = []
    for number, shot in enumerate(shots):
        if not found or len(found[-1]) == batch_size or shots[found[-1][0]].part != shot.part:
            found.append([])
        found[-1].append(number)
    return found


def score_batch(
    parts: Sequence[Part], judges: Judges, shots: Sequence[Shot], numbers: Sequence[int], folder: Path
) -> Scored:
    """Scores one batch; images of several sizes are judged apart, those that cannot be read are left out."""
    import torch

    from diffalign.evaluation.suites import Outcome

    outcomes: dict[int, Outcome] = {}
    images, broken = _read(shots, numbers, folder)
    outcomes.update((number, Outcome(math.nan)) for number in numbers if number not in images)
    part = parts[shots[numbers[0]].part]
    for size in dict.fromkeys(image.shape for image in images.values()):
        rows = [number for number, image in images.items() if image.shape == size]
        lines = [part.lines[shots[number].line] for number in rows]
        found = part.suite.score(torch.stack([images[number] for number in rows]), lines, judges)
        outcomes.update(zip(rows, found, strict=True))
    return Scored(outcomes, broken)


def _read(shots: Sequence[Shot], numbers: Sequence[int], folder: Path) -> tuple[dict[int, Tensor], dict[str, str]]:
    from diffalign.data.cells import read_cell

    images: dict[int, Tensor] = {}
    broken: dict[str, str] = {}
    for number in numbers:
        try:
            images[number] = read_cell(folder, shots[number].file)
        except ValueError as error:
            broken[shots[number].file] = str(error)
    return images, broken


def unreadable(shots: Sequence[Shot], folder: Path) -> Iterator[str]:
    """Files that cannot be read as images."""
    for shot in shots:
        yield from _read([shot], [0], folder)[1]
