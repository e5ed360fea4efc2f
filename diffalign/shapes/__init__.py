"""The embedded world: 32x32 scenes of coloured shapes in GenEval's form.

A renderer, a prompt grammar with held-out combinations, a detector and shipped checkpoints: see docs/shapes.md.
"""

from __future__ import annotations

from diffalign.shapes.detector import detect
from diffalign.shapes.render import Item, Scene, render, render_batch
from diffalign.shapes.scene import sample_scene
from diffalign.shapes.shipped import checkpoint
from diffalign.shapes.splits import prompts
from diffalign.shapes.vocabulary import CLASSES, COLOURS

__all__ = [
    "CLASSES",
    "COLOURS",
    "Item",
    "Scene",
    "checkpoint",
    "detect",
    "prompts",
    "render",
    "render_batch",
    "sample_scene",
]
