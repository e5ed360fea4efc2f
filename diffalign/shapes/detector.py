"""Finds coloured shapes: nearest-colour labels, connected components, overlap with templates; batched, CPU or GPU.

One component gives at most one detection. It must be a region of one vocabulary colour, of a size and aspect that the
world draws, and its coverage map, cut to its box and resampled to a small grid, must overlap a rendered example of
some class. The score is that overlap, rescaled; it also falls with distance from the pure colour.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.evaluation.geneval import Detection
from diffalign.shapes.components import components
from diffalign.shapes.render import coverage
from diffalign.shapes.vocabulary import CLASSES, COLOURS, GREY, SIZE

GRID = 10
MIN_AREA = 14
MIN_SIDE, MAX_SIDE = 7, 18
MIN_ASPECT = 0.66
OVERLAP_FLOOR, OVERLAP_FULL = 0.68, 0.84
PURITY_FULL, PURITY_FLOOR = 0.16, 0.40
OFF_LINE = 0.35
_NAMES = tuple(COLOURS)


@cache
def _palette() -> Tensor:
    """(9, 3): the background first, then the colours."""
    return torch.tensor([GREY, *COLOURS.values()])


def color_map(images: Tensor) -> Tensor:
    """Index of the nearest palette entry, 0 for background: (B, 3, H, W) -> (B, H, W) int64."""
    palette = _palette()
    scores = F.conv2d(images, palette[:, :, None, None] * 2, -(palette**2).sum(1))
    return scores.argmax(1)


def _resample(maps: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
    """Bilinear samples of maps on a grid over each box.

    Args:
        maps: (B, H, W) values.
        image: (K,) which map a box reads.
        boxes: (K, 4) x0, y0, x1, y1 in pixels.

    Returns:
        (K, GRID, GRID).
    """
    steps = (torch.arange(GRID) + 0.5) / GRID
    x = boxes[:, 0:1] + steps * (boxes[:, 2:3] - boxes[:, 0:1]) - 0.5
    y = boxes[:, 1:2] + steps * (boxes[:, 3:4] - boxes[:, 1:2]) - 0.5
    x, y = x.clamp(0, SIZE - 1), y.clamp(0, SIZE - 1)
    left, top = x.floor().clamp(max=SIZE - 2).long(), y.floor().clamp(max=SIZE - 2).long()
    fx, fy = (x - left)[:, None, :], (y - top)[:, :, None]
    flat = maps.reshape(-1)
    base = (image * SIZE * SIZE)[:, None, None] + top[:, :, None] * SIZE + left[:, None, :]
    upper = flat[base] * (1 - fx) + flat[base + 1] * fx
    lower = flat[base + SIZE] * (1 - fx) + flat[base + SIZE + 1] * fx
    return upper * (1 - fy) + lower * fy


@cache
def templates() -> tuple[Tensor, Tensor]:
    """Rendered examples of every class through the detector's own cutting: (T, GRID*GRID) and their class (T,)."""
    grids, labels = [], []
    shifts = torch.tensor([0.0, 0.33, 0.67])
    radius, dx, dy = torch.cartesian_prod(torch.tensor([4.2, 4.8, 5.4, 6.2, 7.0]), shifts, shifts).unbind(1)
    for index, name in enumerate(CLASSES):
        maps = coverage(name, SIZE / 2 + dx, SIZE / 2 + dy, radius)
        grids.append(_resample(maps, torch.arange(len(maps)), _mask_boxes(maps > 0.5)).flatten(1))
        labels.append(torch.full((len(maps),), index))
    return torch.cat(grids), torch.cat(labels)


def _mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of (N, H, W) masks: (N, 4) float."""
    rows, columns = masks.any(2), masks.any(1)
    axis = torch.arange(SIZE)

    def ends(hits: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(hits, axis, SIZE).amin(1), torch.where(hits, axis, -1).amax(1) + 1

    (x0, x1), (y0, y1) = ends(columns), ends(rows)
    return torch.stack([x0, y0, x1, y1], 1).float()


def _candidates(labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Components worth a look: root pixel (K,), boxes (K, 4), areas (K,) and each pixel's component index or -1."""
    roots = components(labels).flatten()
    size = labels.numel()
    area = torch.bincount(roots, minlength=size)
    chosen = ((area >= MIN_AREA) & (labels.flatten() > 0)).nonzero().flatten()
    index = torch.full((size,), -1)
    index[chosen] = torch.arange(len(chosen))
    member = index[roots]
    pixels = (member >= 0).nonzero().flatten()
    owner = member[pixels]
    place = torch.stack([pixels % SIZE, (pixels // SIZE) % SIZE], 1)
    owners = owner[:, None].expand(-1, 2)
    low = torch.full((len(chosen), 2), SIZE).scatter_reduce(0, owners, place, "amin")
    high = torch.full((len(chosen), 2), -1).scatter_reduce(0, owners, place, "amax")
    return chosen, torch.cat([low, high + 1], 1).float(), area[chosen].float(), member


def _cover(images: Tensor, image: Tensor, boxes: Tensor, rgb: Tensor) -> Tensor:
    """How far each grid point lies from grey towards a component's colour: (K, GRID*GRID) in [0, 1].

    Points off the line between grey and that colour (another object's, say) count as uncovered.
    """
    grids = torch.stack([_resample(images[:, c], image, boxes) for c in range(3)], -1).flatten(1, 2)
    grey = _palette()[0]
    axis = rgb - grey
    share = ((grids - grey) * axis[:, None]).sum(-1) / (axis**2).sum(-1, keepdim=True)
    off_line = (grids - grey - share[..., None] * axis[:, None]).norm(dim=-1)
    return share.clamp(0, 1) * (off_line < OFF_LINE)


def _classify(cover: Tensor) -> tuple[Tensor, Tensor]:
    """Best soft overlap (Tanimoto) with a template, and its class: two (K,) tensors."""
    examples, classes = templates()
    common = cover @ examples.T
    overlap = common / (cover.square().sum(1, keepdim=True) + examples.square().sum(1) - common)
    best, where = overlap.max(1)
    return best, classes[where]


def _ramp(value: Tensor, floor: float, full: float) -> Tensor:
    """0 at ``floor``, 1 at ``full``, linear between (either may be the larger)."""
    return ((value - floor) / (full - floor)).clamp(0, 1)


def _plausible(boxes: Tensor) -> Tensor:
    """Whether boxes have a side and an aspect that the world draws."""
    sides = boxes[:, 2:] - boxes[:, :2]
    short, long = sides.amin(1), sides.amax(1)
    return (short >= MIN_SIDE) & (long <= MAX_SIDE) & (short >= MIN_ASPECT * long)


@torch.no_grad()
def measure(images: Tensor) -> dict[str, Tensor]:
    """The detector's numbers, one row per plausible component of the batch.

    Returns:
        ``image`` (K,), ``box`` (K, 4), ``color`` and ``label`` (K,) indices, ``overlap``, ``distance`` and ``score``
        (K,), ``member`` (B*H*W,) the row of each pixel or -1.
    """
    images = images.detach().float().clamp(0, 1)
    labels = color_map(images)
    roots, boxes, area, member = _candidates(labels)
    color = labels.flatten()[roots]
    rgb = _palette()[color]
    pixels = (member >= 0).nonzero().flatten()
    owner = member[pixels]
    values = images.permute(0, 2, 3, 1).reshape(-1, 3)[pixels]
    far = (values - rgb[owner]).norm(dim=1)
    distance = torch.zeros(len(roots)).scatter_add_(0, owner, far) / area
    image = roots // (SIZE * SIZE)
    overlap, label = _classify(_cover(images, image, boxes, rgb))
    score = _ramp(overlap, OVERLAP_FLOOR, OVERLAP_FULL) * _ramp(distance, PURITY_FLOOR, PURITY_FULL)
    score = score * _plausible(boxes)
    return {
        "image": image,
        "box": boxes,
        "color": color,
        "label": label,
        "overlap": overlap,
        "distance": distance,
        "score": score,
        "member": member,
    }


def detect(images: Tensor) -> list[list[Detection]]:
    """Finds the objects of each image, best first; the answer for an image does not depend on its batch.

    Args:
        images: (B, 3, 32, 32) in [0, 1]; values outside are clamped.

    Returns:
        One list per image; components with score 0 are left out.

    Raises:
        ValueError: if the shape is not (B, 3, 32, 32).
    """
    if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"images of shape {tuple(images.shape)}; the shapes detector takes (B, 3, {SIZE}, {SIZE})")
    found = measure(images)
    out: list[list[Detection]] = [[] for _ in range(len(images))]
    rows = found["score"].nonzero().flatten()
    rows = rows[found["score"][rows].argsort(descending=True, stable=True)]
    member = found["member"].reshape(len(images), SIZE, SIZE)
    columns = zip(
        rows.tolist(),
        found["image"][rows].tolist(),
        found["label"][rows].tolist(),
        found["color"][rows].tolist(),
        found["score"][rows].tolist(),
        found["box"][rows].tolist(),
        strict=True,
    )
    for row, image, label, color, score, (x0, y0, x1, y1) in columns:
        mask = member[image] == row
        out[image].append(Detection(CLASSES[label], score, (x0, y0, x1, y1), _NAMES[color - 1], mask))
    return out
