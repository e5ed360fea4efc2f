from __future__ import annotations

import torch
from scipy import ndimage

from diffalign.shapes.components import components


def partition(roots: torch.Tensor) -> set[frozenset[int]]:
    groups: dict[int, set[int]] = {}
    for index, root in enumerate(roots.flatten().tolist()):
        groups.setdefault(root, set()).add(index)
    return {frozenset(g) for g in groups.values()}


def test_components_match_scipys_on_random_maps():
    generator = torch.Generator().manual_seed(0)
    for colors in (2, 3, 5):
        labels = torch.randint(colors, (1, 32, 32), generator=generator)
        combined, base = torch.zeros(32, 32, dtype=torch.long), 0
        for color in range(colors):
            found, count = ndimage.label((labels[0] == color).numpy())
            combined += torch.from_numpy(found).long() + base * torch.from_numpy(found > 0)
            base += count
        assert partition(components(labels)[0]) == partition(combined)


def test_a_spiral_is_one_component():
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    y, x, dy, dx = 0, -1, 0, 1
    for length in [32, 31, 31, 29, 29, 27, 27, 25, 25, 23, 23, 21, 21, 19, 19, 17, 17, 15, 15, 13, 13]:
        for _ in range(length):
            y, x = y + dy, x + dx
            labels[0, y, x] = 1
        dy, dx = dx, -dy
    roots = components(labels)
    assert roots[labels == 1].unique().numel() == 1
    assert roots[labels == 1][0] == (labels.flatten() == 1).nonzero().max()


def test_images_of_a_batch_do_not_join():
    labels = torch.zeros(3, 32, 32, dtype=torch.long)
    assert components(labels).flatten(1).unique(dim=1).flatten().unique().numel() == 3
