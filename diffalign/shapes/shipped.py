"""Where the shipped checkpoints lie."""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDER = Path(__file__).parent / "checkpoints"
NAMES = ("shapes-flow", "shapes-unet")


def checkpoint(name: str) -> Path:
    """Folder of a shipped checkpoint, for ``Pipeline.from_pretrained``.

    Raises:
        ValueError: if the name is unknown.
        FileNotFoundError: if the package was installed without the checkpoint.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"checkpoint {name!r} is unknown; did you mean {near!r}? Shipped: {', '.join(NAMES)}")
    path = FOLDER / name
    if not (path / "model_index.json").is_file():
        raise FileNotFoundError(f"{name} is not in {FOLDER}; make it with scripts/make_shapes, or reinstall diffalign")
    return path
