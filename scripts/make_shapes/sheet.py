"""Draws the vocabulary and one held-out scene per task: ``python scripts/make_shapes/sheet.py OUT_FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch

from diffalign.evaluation.geneval_prompts import TAGS
from diffalign.shapes import CLASSES, COLOURS, Item, Scene, prompts, render, sample_scene
from diffalign.shapes.splits import HELD_COLORS

matplotlib.use("Agg")
from matplotlib import pyplot


def vocabulary(path: Path) -> None:
    """Every class in every colour; held-out combinations carry a dashed frame."""
    figure, axes = pyplot.subplots(len(CLASSES), len(COLOURS), figsize=(7.2, 6.6), constrained_layout=True)
    for row, name in zip(axes, CLASSES, strict=True):
        for axis, (color, rgb) in zip(row, COLOURS.items(), strict=True):
            axis.imshow(render(Scene((Item(name, color, rgb, 16.0, 16.0, 6.0),))).permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                held = (name, color) in HELD_COLORS
                side.set(linestyle="--" if held else "-", linewidth=2.5 if held else 0.3)
            if name == CLASSES[0]:
                axis.set_title(color, fontsize=9)
        row[0].set_ylabel(name, fontsize=9)
    figure.savefig(path, dpi=90)


def scenes(path: Path, columns: int = 4) -> None:
    """Held-out prompts of every task with a scene that satisfies them."""
    generator = torch.Generator().manual_seed(0)
    figure, axes = pyplot.subplots(len(TAGS), columns, figsize=(9, 11), constrained_layout=True)
    for row, tag in zip(axes, TAGS, strict=True):
        lines = [line for line in prompts("heldout") if line["tag"] == tag]
        for axis, line in zip(row, lines, strict=False):
            axis.imshow(render(sample_scene(line, generator)).permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
            axis.set_title(line["prompt"].removeprefix("a photo of "), fontsize=7)
        row[0].set_ylabel(tag, fontsize=9)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    vocabulary(out / "shapes_vocabulary.png")
    scenes(out / "shapes_scenes.png")


if __name__ == "__main__":
    main()
