"""The words of the shapes world: classes, colours, and the grey they stand on."""

from __future__ import annotations

SIZE = 32
GREY = (0.5, 0.5, 0.5)
CLASSES = ("circle", "square", "triangle", "diamond", "cross", "ring", "heart")
COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.70, 0.15),
    "blue": (0.10, 0.20, 0.90),
    "yellow": (0.95, 0.90, 0.10),
    "purple": (0.60, 0.10, 0.75),
    "orange": (1.00, 0.50, 0.00),
    "white": (1.00, 1.00, 1.00),
    "black": (0.00, 0.00, 0.00),
}
COUNTS = (2, 3, 4)
