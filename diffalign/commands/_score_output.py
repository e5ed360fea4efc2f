"""Tables of scores as Parquet, CSV or JSON lines, and the sheet of the best and the worst images."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

THUMBNAIL = 192
FIXED = ("file", "prompt", "metadata", "height", "width")
Rows = list[dict[str, Any]]


def check_output(path: Path, images: Path) -> None:
    """Refuse an output that could not be written in the end, before anything is scored.

    Raises:
        ValueError: another suffix, Parquet without the library, a folder that is not there, or the folder of the images
            (its sheets would be scored the next time).
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"--output {path} must end in {', '.join(WRITERS)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError("Parquet needs pyarrow: pip install 'diffalign[parquet]', or --output scores.csv or .jsonl")
    if not path.parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {path.parent}")
    if path.resolve().is_relative_to(images.resolve()):
        raise ValueError(f"--output {path} lies in the folder that is scored: put it elsewhere")


def write_scores(path: Path, rows: Rows, names: list[str]) -> None:
    """Write the table whole or not at all: fixed columns, then one of scores per reward, empty where there is none."""
    temporary = path.with_name(f".{path.name}.tmp")
    WRITERS[path.suffix](temporary, rows, names)
    os.replace(temporary, path)


def _parquet(path: Path, rows: Rows, names: list[str]) -> None:
    """Metadata is a column of JSON text: its keys differ from row to row."""
    import pyarrow as arrow
    import pyarrow.parquet

    kinds = {"height": arrow.int32(), "width": arrow.int32(), **dict.fromkeys(names, arrow.float32())}
    columns = {
        key: arrow.array([_cell(row, key) for row in rows], type=kinds.get(key, arrow.string()))
        for key in (*FIXED, *names)
    }
    arrow.parquet.write_table(arrow.table(columns), path)


def _csv(path: Path, rows: Rows, names: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*FIXED, *names])
        writer.writerows([_cell(row, key) for key in (*FIXED, *names)] for row in rows)


def _json_lines(path: Path, rows: Rows, names: list[str]) -> None:
    lines = (json.dumps({key: row[key] for key in (*FIXED, *names)}, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _cell(row: dict[str, Any], key: str) -> Any:
    return json.dumps(row[key], ensure_ascii=False) if key == "metadata" else row[key]


WRITERS: dict[str, Callable[[Path, Rows, list[str]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
"""Suffix -> how the table is written."""


def sheet_path(output: Path, name: str) -> Path:
    """Where the sheet of a reward goes: beside the table."""
    return output.with_name(f"{output.stem}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.png")


def contact_sheet(folder: str | Path, rows: Rows, name: str, count: int) -> Image.Image:
    """The best `count` images in the upper half, the worst `count` in the lower one, scores and prompts above them.

    With fewer than twice as many images, each half shows half of them.
    """
    import numpy as np
    import torch

    from diffalign.report import image_grid

    scored = sorted((row for row in rows if row[name] is not None), key=lambda row: -row[name])
    half = max(min(count, len(scored) // 2), 1)
    chosen = scored[:half] + (scored[-half:] if len(scored) > 1 else [])
    pixels = [np.array(_thumbnail(Path(folder) / row["file"])) for row in chosen]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    labels = [f"{row[name]:.4g} | {row['prompt'] or row['file']}" for row in chosen]
    columns = max(n for n in range(1, 9) if half % n == 0)
    return image_grid(images, columns if columns > 1 else half, 1, labels)


def _thumbnail(path: Path) -> Image.Image:
    """The whole image in the middle of a white square; small ones are enlarged by a whole factor."""
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    factor = THUMBNAIL // max(picture.size)
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    sheet = Image.new("RGB", (THUMBNAIL, THUMBNAIL), (255, 255, 255))
    sheet.paste(picture, ((THUMBNAIL - picture.width) // 2, (THUMBNAIL - picture.height) // 2))
    return sheet
