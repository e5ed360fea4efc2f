"""Tables of scores as Parquet, CSV or JSON lines, and the sheet of the best and the worst images."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.commands._outputs import check_writable
from diffalign.data.text import decoded_name

if TYPE_CHECKING:
    from PIL import Image

    from diffalign.data.folders import Picture

THUMBNAIL = 192
FIXED = ("file", "prompt", "metadata", "height", "width")
"""Columns that are not scores."""


@dataclass
class Row:
    """One image with its scores.

    Attributes:
        picture: the image.
        height: in pixels; None where it could not be read.
        width: in pixels.
        scores: reward name -> score, None where it could not be scored.
    """

    picture: Picture
    height: int | None = None
    width: int | None = None
    scores: dict[str, float | None] = field(default_factory=dict)

    def cells(self, names: Sequence[str]) -> dict[str, Any]:
        """Column -> value; metadata as it is."""
        own = (self.picture.file, self.picture.prompt or "", self.picture.metadata, self.height, self.width)
        return dict(zip(FIXED, own, strict=True)) | {column(name): self.scores.get(name) for name in names}


def column(name: str) -> str:
    """The column of a reward: its name, with `reward_` in front where that is another column's."""
    return f"reward_{name}" if name in FIXED else decoded_name(name)


def check_output(path: Path, images: Path) -> None:
    """Refuse an output that could not be written in the end, before anything is scored.

    Raises:
        ValueError: another suffix, Parquet without the library, a place that cannot be written, or the folder of the
            images (its sheets would be scored the next time).
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"--output {path} must end in {', '.join(WRITERS)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError("Parquet needs pyarrow: pip install 'diffalign[parquet]', or --output scores.csv or .jsonl")
    if path.resolve().is_relative_to(images.resolve()):
        raise ValueError(f"--output {path} is in the folder that is scored: put it elsewhere")
    check_writable(path)


def write_scores(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Write the table: fixed columns, then one of scores per reward, empty where there is none."""
    WRITERS[path.suffix](path, [row.cells(names) for row in rows], [*FIXED, *map(column, names)])


def _parquet(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Metadata is a column of JSON text: its keys differ from row to row."""
    import pyarrow as arrow
    import pyarrow.parquet

    kinds = dict.fromkeys(columns, arrow.float32()) | dict.fromkeys(FIXED, arrow.string())
    kinds |= {"height": arrow.int32(), "width": arrow.int32()}
    values = {key: arrow.array([_cell(row[key]) for row in rows], type=kinds[key]) for key in columns}
    arrow.parquet.write_table(arrow.table(values), path)


def _csv(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_cell(row[key]) for key in columns] for row in rows)


def _json_lines(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:  # half a surrogate pair: JSON's escape
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _cell(value: Any) -> Any:
    """A value that CSV and Parquet can hold."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
    return decoded_name(text) if isinstance(text, str) else text


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]], list[str]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
"""Suffix -> how the table is written."""


def sheet_path(output: Path, name: str) -> Path:
    """Where the sheet of a reward goes: beside the table."""
    return output.with_name(f"{output.stem}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.png")


def contact_sheet(rows: Sequence[Row], name: str, count: int) -> Image.Image:
    """The best `count` images in the upper half, the worst `count` in the lower one, scores and prompts above them.

    With fewer than twice as many images, each half shows half of them.
    """
    import torch

    from diffalign.report import image_grid

    scored = sorted(((row.scores[name] or 0.0, row) for row in rows if row.scores[name] is not None), key=_by_score)
    half = max(min(count, len(scored) // 2), 1)
    chosen = scored[:half] + (scored[-half:] if len(scored) > 1 else [])
    images = torch.stack([_thumbnail(row.picture.path) for _, row in chosen])
    labels = [f"{value:.4g} | {row.picture.prompt or row.picture.file}" for value, row in chosen]
    columns = max(n for n in range(1, 9) if half % n == 0)
    return image_grid(images, columns if columns > 1 else half, 1, labels)


def _by_score(scored: tuple[float, Row]) -> float:
    return -scored[0]


def _thumbnail(path: Path) -> Any:
    """The whole image `(3, H, W)` in the middle of a white square; small ones are enlarged by a whole factor."""
    import torch
    from torch.nn import functional

    from diffalign.data.images import read_image

    image = read_image(path)
    longest = max(image.shape[1:])
    if longest <= THUMBNAIL:
        image = image.repeat_interleave(THUMBNAIL // longest, 1).repeat_interleave(THUMBNAIL // longest, 2)
    else:
        size = [max(1, round(side * THUMBNAIL / longest)) for side in image.shape[1:]]
        image = functional.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    sheet = torch.ones(3, THUMBNAIL, THUMBNAIL)
    top, left = (THUMBNAIL - image.shape[1]) // 2, (THUMBNAIL - image.shape[2]) // 2
    sheet[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    return sheet
