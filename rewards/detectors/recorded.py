"""Detections that another program found: a JSON file, for detectors that cannot be installed beside this package.

The file holds `{"detector": {...}, "images": {"00000/samples/0000.png": [{"label": ..., "score": ..., "box": [x0, y0,
x1, y1], "color": ..., "mask": {"size": [h, w], "counts": ...}}, ...], ...}}`: `detector` says what found them (its
`name` and `revision` go into results), paths start at the folder of the images, `color` and `mask` (COCO's run lengths)
may be left out, and an image without objects has an empty list. Images are found again by their pixels.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.data.images import read_image
from diffalign.evaluation.judges import Detection, Detector
from diffalign.rewards.detectors._records import from_json


class RecordedDetector:
    """Images to the detections that a file has for them."""

    def __init__(self, file: Path, folder: Path, content: dict[str, Any]) -> None:
        """Wraps a file that was read; see `detect`."""
        self._file, self._folder, self._images = file, folder, content["images"]
        self._detector = dict(content["detector"])
        self.name = str(self._detector["name"])

    def describe(self) -> dict[str, Any]:
        """What identifies the detector in a result: what the file says of it, and the file's hash."""
        digest = hashlib.sha256(self._file.read_bytes()).hexdigest()[:16]
        return {"revision": "", **self._detector, "records": f"sha256:{digest}"}

    def __call__(self, images: Tensor, labels: object = None) -> list[list[Detection]]:
        """The recorded detections, best first; see `diffalign.evaluation.judges.Detector`.

        Raises:
            ValueError: If the file has none for an image.
        """
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> list[Detection]:
        name = self._names.get(pixel_hash(image))
        if name is None:
            raise ValueError(
                f"{self._file} has no entry for an image of {image.shape[-1]} x {image.shape[-2]} pixels: it lists "
                f"{len(self._images)} images in {self._folder}; was it made from other images? (set `images` to their "
                "folder)"
            )
        found = [
            from_json(record, f"{self._file}, {name}, detection {i}") for i, record in enumerate(self._images[name])
        ]
        return sorted(found, key=lambda one: -one.score)

    @cached_property
    def _names(self) -> dict[str, str]:
        """Pixels -> name in the file. Every listed image is read once."""
        return {pixel_hash(read_image(self._folder / name)): name for name in self._images}


def detect(file: str, *, images: str | None = None) -> Detector:
    """Reads the file.

    Args:
        file: The JSON file.
        images: Folder that its paths start at; None: the folder of the file.

    Raises:
        ValueError: If the file is not of this form, or lists an image that is not there.
        FileNotFoundError: If there is no such file.
    """
    path = Path(file).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    sound = isinstance(content, dict) and isinstance(content.get("images"), dict)
    if not sound or not isinstance(content.get("detector"), dict) or "name" not in content["detector"]:
        raise ValueError(
            f'{path} must be an object with "detector" (an object with a name) and "images" (path -> list)'
        )
    folder = path.parent if images is None else Path(images).expanduser()
    absent = [name for name in content["images"] if not (folder / name).is_file()]
    if absent:
        raise ValueError(f"{path} lists {len(absent)} images that are not in {folder}, first {absent[0]!r}")
    return RecordedDetector(path, folder, content)


def pixel_hash(image: Tensor) -> str:
    """Hash of an image `(3, H, W)` in [0, 1], rounded to 8 bits."""
    pixels = (image.detach().cpu().float() * 255).round().byte().contiguous()
    return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).hexdigest()
