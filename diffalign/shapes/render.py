"""Anti-aliased rendering of scenes by signed distances: coverage of a pixel is its clamped distance to the outline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffalign.shapes.vocabulary import GREY, SIZE

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Item:
    """One shape: class, colour name, the RGB it is drawn in, centre and half extent in pixels."""

    label: str
    color: str
    rgb: Color
    x: float
    y: float
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in pixels."""
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius


@dataclass(frozen=True)
class Scene:
    """Shapes on a plain background."""

    items: tuple[Item, ...]
    background: Color = GREY


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 1


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 1


def _diamond(u: Tensor, v: Tensor) -> Tensor:
    return (u.abs() + v.abs() - 1) / 2**0.5


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(v - 1, (2 * u.abs() - v - 1) / 5**0.5)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    wide = torch.maximum(u.abs() - 1, v.abs() - 0.33)
    tall = torch.maximum(u.abs() - 0.33, v.abs() - 1)
    return torch.minimum(wide, tall)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    length = torch.hypot(u, v)
    return torch.maximum(length - 1, 0.5 - length)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    lobes = torch.hypot(u.abs() - 0.5, v + 0.45) - 0.52
    wedge = torch.maximum(-v - 0.45, (u.abs() * 1.42 + v - 1) / 1.737)
    return torch.minimum(lobes, wedge)


OUTLINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
}


def coverage(label: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Share of each pixel that shapes of one class cover.

    Args:
        label: class name.
        x, y: (N,) centres in pixels, 0 at the left or top edge.
        radius: (N,) half extents in pixels.

    Returns:
        (N, H, W) in [0, 1].
    """
    axis = torch.arange(SIZE, dtype=x.dtype) + 0.5
    u = (axis[None, None, :] - x[:, None, None]) / radius[:, None, None]
    v = (axis[None, :, None] - y[:, None, None]) / radius[:, None, None]
    return (0.5 - OUTLINES[label](u, v) * radius[:, None, None]).clamp(0, 1)


def render_batch(scenes: Sequence[Scene]) -> Tensor:
    """Draws scenes; later items cover earlier ones.

    Returns:
        (B, 3, 32, 32) float32 in [0, 1].
    """
    images = torch.tensor([s.background for s in scenes])[:, :, None, None].expand(-1, -1, SIZE, SIZE).clone()
    for layer in range(max((len(s.items) for s in scenes), default=0)):
        by_class: dict[str, list[int]] = {}
        for index, scene in enumerate(scenes):
            if layer < len(scene.items):
                by_class.setdefault(scene.items[layer].label, []).append(index)
        for label, where in by_class.items():
            items = [scenes[i].items[layer] for i in where]
            x, y, radius = torch.tensor([(i.x, i.y, i.radius) for i in items]).unbind(1)
            alpha = coverage(label, x, y, radius)[:, None]
            rgb = torch.tensor([i.rgb for i in items])[:, :, None, None]
            images[where] = images[where] * (1 - alpha) + rgb * alpha
    return images


def render(scene: Scene) -> Tensor:
    """Draws one scene: (3, 32, 32) float32 in [0, 1]."""
    return render_batch([scene])[0]
