"""Which combinations are held out, and the prompts of either side.

Training never sees class i in the colours i+1 and i+5 (mod 8), never beside class i+2 (mod 7), and never in the i-th
(mod 3) of the three counts: neither in a caption nor in an image. Held-out lines ask for exactly these combinations.
"""

from __future__ import annotations

import copy
import random
from functools import cache

from diffalign.evaluation import geneval_prompts as grammar
from diffalign.evaluation.geneval_prompts import Line
from diffalign.shapes.vocabulary import CLASSES, COLOURS, COUNTS

PER_TASK = 48
_NAMES = tuple(COLOURS)

HELD_COLORS = frozenset((name, _NAMES[(i + step) % len(_NAMES)]) for i, name in enumerate(CLASSES) for step in (1, 5))
HELD_COUNTS = frozenset((name, COUNTS[i % len(COUNTS)]) for i, name in enumerate(CLASSES))
HELD_PAIRS = frozenset(frozenset((name, CLASSES[(i + 2) % len(CLASSES)])) for i, name in enumerate(CLASSES))


@cache
def free_colors(name: str) -> tuple[str, ...]:
    """Colours in which a class may be seen in training."""
    return tuple(c for c in COLOURS if (name, c) not in HELD_COLORS)


def held_out(line: Line) -> bool:
    """Whether a line names a combination that training must not see."""
    clauses = line["include"]
    names = [c["class"] for c in clauses]
    return (
        any((c["class"], c.get("color")) in HELD_COLORS for c in clauses)
        or any((c["class"], c["count"]) in HELD_COUNTS for c in clauses)
        or frozenset(names) in HELD_PAIRS
    )


@cache
def _lines() -> tuple[Line, ...]:
    return tuple(grammar.every_line(CLASSES, tuple(COLOURS), COUNTS))


def _fill(lines: list[Line], count: int) -> list[Line]:
    """``count`` lines: a fixed sample where there are more, whole repetitions and a remainder where there are fewer."""
    random.Random(len(lines)).shuffle(lines)
    return [lines[i % len(lines)] for i in range(count)]


def _held_pair_known_colors(line: Line) -> bool:
    """Attribution lines of a held-out pair whose colours are all known, so that only the pair is new."""
    return line["tag"] != "color_attr" or all((c["class"], c["color"]) not in HELD_COLORS for c in line["include"])


@cache
def _split(split: str) -> tuple[Line, ...]:
    lines = _lines()
    if split == "train":
        return tuple(line for line in lines if not held_out(line))
    chosen: list[Line] = []
    for tag in grammar.TAGS:
        unseen = [line for line in lines if line["tag"] == tag and (held_out(line) or tag == "single_object")]
        chosen += _fill([line for line in unseen if _held_pair_known_colors(line)], PER_TASK)
    return tuple(chosen)


def prompts(split: str) -> list[Line]:
    """GenEval lines of a split of the shapes world.

    ``train``: every line over the vocabulary without a held-out combination. ``heldout``: ``PER_TASK`` lines per task,
    in task order; two_object and position name held-out pairs, color_attr held-out pairs in known colours, colors and
    counting held-out class-colour and class-count combinations. A single class alone cannot be held out: those lines
    are the training ones again. Tasks with fewer distinct prompts repeat them; give every line its own seed.

    Raises:
        ValueError: if the split is not "train" or "heldout".
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"split {split!r} is unknown; use 'train' or 'heldout'")
    return [copy.deepcopy(line) for line in _split(split)]
