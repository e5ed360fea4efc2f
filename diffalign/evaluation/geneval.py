"""GenEval's rules as pure functions over detections (Ghosh et al. 2023, arXiv 2310.11513; rules as released in code).

Three forms of one judgement: ``correct`` (the benchmark), ``soft_reference`` and ``score_strict`` (the reward server
used with Flow-GRPO, kept as it is, negative clauses and all) and ``soft`` (ours: every credit lies in [0, 1], and the
mean is 1 exactly when ``correct`` holds). Overall is the unweighted mean of the tasks, never of the prompts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffalign.evaluation.judges import Box, Detection

THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9
MAX_PER_CLASS = 16
POSITION_MARGIN = 0.1
NONE_TOLERANCE = 1e-3

Line = Mapping[str, Any]
ColourFn = Callable[[Detection], "str | None"]
Group = list[Detection]


def own_color(detection: Detection) -> str | None:
    """The default colour function: what the detector itself said."""
    return detection.color


def single(value: float) -> float:
    """A number rounded to float32, the precision in which the released code compares confidences."""
    return ctypes.c_float(value).value


def keep(detections: Sequence[Detection], line: Line) -> dict[str, Group]:
    """Detections by class: above the tag's threshold (strictly), best first, at most 16 per class, no suppression.

    As `evaluate_image` of djghosh13/geneval (evaluation/evaluate_images.py): scores are float32, so one of float32 0.3
    is not above 0.3; order is `np.argsort(scores)[::-1]`, so of equal scores the one that the detector gave last leads.
    """
    threshold = single(COUNTING_THRESHOLD if line.get("tag") == "counting" else THRESHOLD)
    groups: dict[str, Group] = {}
    for detection in sorted(reversed(detections), key=lambda d: -single(d.score)):
        group = groups.setdefault(detection.label, [])
        if single(detection.score) > threshold and len(group) < MAX_PER_CLASS:
            group.append(detection)
    return groups


def offset(box: Box, target: Box) -> tuple[float, float]:
    """Direction of ``box`` seen from ``target``: the margin-reduced offset over the full offset's length.

    Returns:
        (dx, dy), each within [-1, 1]; (0, 0) where the boxes stand within the margin of each other on both axes.
    """
    raw, reduced = [], []
    for axis in (0, 1):
        delta = (box[axis] + box[axis + 2] - target[axis] - target[axis + 2]) / 2
        margin = POSITION_MARGIN * (box[axis + 2] - box[axis] + target[axis + 2] - target[axis])
        raw.append(delta)
        reduced.append(max(abs(delta) - margin, 0.0) * (1 if delta > 0 else -1))
    if all(abs(value) < NONE_TOLERANCE for value in reduced):
        return 0.0, 0.0
    length = (raw[0] ** 2 + raw[1] ** 2) ** 0.5
    return reduced[0] / length, reduced[1] / length


def relations(box: Box, target: Box) -> set[str]:
    """Relations of ``box`` to ``target``; none, one or two of them (a diagonal can be both left and above)."""
    dx, dy = offset(box, target)
    tests = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in tests.items() if holds}


def _clause_failure(clause: Line, found: Group, groups: Sequence[Group | None], colour_fn: ColourFn) -> str | None:
    """Why an include clause fails, or None; ``found`` holds the best ``count`` objects of its class."""
    name, count = clause["class"], clause["count"]
    if len(found) < count:
        return f"expected {name}>={count}, found {len(found)}"
    if "color" in clause:
        seen = [colour_fn(d) for d in found]
        if seen.count(clause["color"]) < count:
            return f"expected {clause['color']} {name}>={count}, found colours {seen}"
    if "position" in clause:
        relation, index = clause["position"]
        targets = groups[index]
        if targets is None:
            return f"no target for {name} to be {relation}"
        if not all(relation in relations(d.box, t.box) for d in found for t in targets):
            return f"expected {name} {relation} target, it is not"
    return None


def explain(detections: Sequence[Detection], line: Line, *, colour_fn: ColourFn | None = None) -> list[str]:
    """Reasons why an image fails its line; an empty list means that it is correct.

    Args:
        detections: all found objects of one image, in any order.
        line: GenEval metadata.
        colour_fn: names an object's colour; default ``Detection.color``.
    """
    objects, reasons = keep(detections, line), []
    groups: list[Group | None] = []
    for clause in line.get("include", ()):
        found = objects.get(clause["class"], [])[: clause["count"]]
        failure = _clause_failure(clause, found, groups, colour_fn or own_color)
        groups.append(None if failure else found)
        if failure:
            reasons.append(failure)
    for clause in line.get("exclude", ()):
        number = len(objects.get(clause["class"], []))
        if number >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {number}")
    return reasons


def correct(detections: Sequence[Detection], line: Line, *, colour_fn: ColourFn | None = None) -> bool:
    """The benchmark's verdict on one image (see ``explain``)."""
    return not explain(detections, line, colour_fn=colour_fn)


def _position_credit(clause: Line, found: Group, targets: Group | None) -> float:
    """Share of the (wanted object, target) pairs in the right relation; a failed target clause gives 0."""
    if not found or targets is None:
        return 0.0
    relation = clause["position"][0]
    holds = [relation in relations(d.box, t.box) for d in found for t in targets]
    return sum(holds) / max(len(holds), clause["count"] * len(targets))


def _exclude_credit(number: int, limit: int) -> float:
    """1 below the limit, then falling linearly to 0 at twice the number that was allowed."""
    allowed = limit - 1
    if number <= allowed:
        return 1.0
    return max(0.0, 1 - (number - allowed) / allowed) if allowed else 0.0


def soft(detections: Sequence[Detection], line: Line, *, colour_fn: ColourFn | None = None) -> float:
    """Our soft score: the mean of count, colour, position and exclude credits, each in [0, 1].

    It is 1 exactly when ``correct`` holds, and never negative, so one badly crowded image cannot outweigh a group.
    """
    objects, credits = keep(detections, line), []
    groups: list[Group | None] = []
    for clause in line.get("include", ()):
        count = clause["count"]
        found = objects.get(clause["class"], [])[:count]
        credits.append(len(found) / count)
        if "color" in clause:
            credits.append([(colour_fn or own_color)(d) for d in found].count(clause["color"]) / count)
        if "position" in clause:
            credits.append(_position_credit(clause, found, groups[clause["position"][1]]))
        failed = _clause_failure(clause, found, groups, colour_fn or own_color)
        groups.append(None if failed else found)
    for clause in line.get("exclude", ()):
        credits.append(_exclude_credit(len(objects.get(clause["class"], [])), clause["count"]))
    return sum(credits) / len(credits) if credits else 1.0


def score_strict(detections: Sequence[Detection], line: Line, *, colour_fn: ColourFn | None = None) -> bool:
    """The reward server's strict form: every include clause met with exactly ``count`` objects, not at least."""
    return _reference(detections, line, colour_fn or own_color)[1]


def soft_reference(detections: Sequence[Detection], line: Line, *, colour_fn: ColourFn | None = None) -> float:
    """The reward server's soft form, kept as released: use ``soft`` to train.

    A count clause is 1 - |wanted - found| / wanted and may be very negative; colour or position that cannot be judged
    adds 0; a failed position adds both 0 and 1.
    """
    credits, _ = _reference(detections, line, colour_fn or own_color)
    return sum(credits) / len(credits) if credits else 0.0


def _reference(detections: Sequence[Detection], line: Line, colour_fn: ColourFn) -> tuple[list[float], bool]:
    """Credits and strict verdict of the reward server's form."""
    objects, credits = keep(detections, line), []
    groups: list[Group | None] = []
    for clause in line.get("include", ()):
        found = objects.get(clause["class"], [])
        clause_credits, matched = _reference_clause(clause, found, groups, colour_fn)
        credits += clause_credits
        groups.append(found if matched else None)
    return credits, all(group is not None for group in groups)


def _reference_clause(
    clause: Line, found: Group, groups: Sequence[Group | None], colour_fn: ColourFn
) -> tuple[list[float], bool]:
    """Credits of one include clause in the reward server's form, and whether it is met exactly."""
    count = clause["count"]
    credits = [1 - abs(count - len(found)) / count]
    if len(found) != count:
        return credits + [0.0] * ("color" in clause or "position" in clause), False
    matched = True
    if "color" in clause:
        right = [colour_fn(d) for d in found].count(clause["color"])
        credits.append(1 - abs(count - right) / count)
        matched = right == count
    if "position" in clause and matched:
        relation, index = clause["position"]
        targets = groups[index]
        matched = targets is not None and all(relation in relations(d.box, t.box) for d in found for t in targets)
        credits += ([] if matched else [0.0]) + ([] if targets is None else [1.0])
    return credits, matched


def summary(lines: Sequence[Line], outcomes: Sequence[bool | float]) -> dict[str, Any]:
    """Scores per task and overall, one line and one outcome per image.

    Args:
        lines: metadata of each image; images of one prompt carry equal ``prompt`` strings.
        outcomes: verdicts, or scores in [0, 1].

    Returns:
        ``overall`` (unweighted mean of the tasks), ``tasks`` {tag: mean}, ``images`` (number), ``image_accuracy`` and
        ``prompt_accuracy`` (share of prompts with any full score).

    Raises:
        ValueError: if the lengths differ or nothing is given.
    """
    if len(lines) != len(outcomes) or not lines:
        raise ValueError(f"{len(lines)} lines and {len(outcomes)} outcomes; give one of each per image, at least one")
    values = [float(o) for o in outcomes]
    by_tag: dict[str, list[float]] = {}
    best: dict[tuple[str, str], float] = {}
    for line, value in zip(lines, values, strict=True):
        by_tag.setdefault(line["tag"], []).append(value)
        key = (line["tag"], line.get("prompt", ""))
        best[key] = max(best.get(key, 0.0), value)
    tasks = {tag: sum(v) / len(v) for tag, v in by_tag.items()}
    return {
        "overall": sum(tasks.values()) / len(tasks),
        "tasks": tasks,
        "images": len(values),
        "image_accuracy": sum(values) / len(values),
        "prompt_accuracy": sum(v >= 1 for v in best.values()) / len(best),
    }
