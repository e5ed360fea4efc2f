"""Where the shipped checkpoints lie."""

from __future__ import annotations

from pathlib import Path

from diffalign.naming import nearest

FOLDER = Path(__file__).parent / "checkpoints"
NAMES = ("shapes-flow", "shapes-flow-guided", "shapes-unet")
"""Pipelines of diffusers."""
CLIP = "shapes-clip"
"""A model of open_clip."""


def checkpoint(name: str) -> Path:
    """Folder of a shipped checkpoint, for ``Pipeline.from_pretrained`` or, of `CLIP`, for open_clip's ``local-dir:``.

    Raises:
        ValueError: if the name is unknown.
        FileNotFoundError: if the package was installed without the checkpoint.
    """
    names = (*NAMES, CLIP)
    if name not in names:
        hint = nearest(name, names, cutoff=0.0)
        raise ValueError(f"checkpoint {name!r} is unknown{hint} Shipped: {', '.join(names)}")
    path = FOLDER / name
    if not (path / ("open_clip_config.json" if name == CLIP else "model_index.json")).is_file():
        raise FileNotFoundError(f"{name} is not in {FOLDER}; make it with scripts/make_shapes, or reinstall diffalign")
    return path
