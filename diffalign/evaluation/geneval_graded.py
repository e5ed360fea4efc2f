"""A denser form of GenEval's judgement, for training: how well, and nothing else.

GenEval asks for "at least" what the prompt names, at a confidence of 0.3 (counting: exactly, at 0.9). A model that is
trained on that learns to draw more than it was asked for and to leave shapes ragged, which costs it the counts. This
score takes confidence as it is and charges for what nobody asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from diffalign.evaluation.geneval import THRESHOLD, Detection, Group, Line, own_color, relations


def graded(detections: Sequence[Detection], line: Line) -> float:
    """Mean credit of the include clauses, times the share of the drawn objects that were asked for, in [0, 1].

    A clause has a credit for its count (summed confidence of its best objects over the number wanted), one for its
    colour (the same, of those in that colour), and one for its position (share of pairs in the relation, times the
    least confidence among them; 0 while the target clause lacks objects). It is 1 only for a scene that holds exactly
    what was asked for, each object at confidence 1. Exclude clauses need no credit of their own: what exceeds the
    wanted number is an object that nobody asked for.

    Args:
        detections: what was found.
        line: GenEval line with at least one include clause.

    Raises:
        ValueError: no include clause.
    """
    clauses = line.get("include") or ()
    if not clauses:
        raise ValueError(f"a graded score needs include clauses; the line has {sorted(line)}")
    classes: dict[str, Group] = defaultdict(list)
    for detection in sorted(detections, key=lambda d: -d.score):
        classes[detection.label].append(detection)
    credits: list[float] = []
    groups: list[Group] = []
    for clause in clauses:
        found = classes[clause["class"]][: clause["count"]]
        groups.append(found)
        credits += _credits(clause, found, groups, clauses)
    wanted = sum(clause["count"] for clause in clauses)
    drawn = sum(d.score > THRESHOLD for d in detections)
    return sum(credits) / len(credits) * wanted / max(drawn, wanted)


def _credits(clause: Line, found: Group, groups: Sequence[Group], clauses: Sequence[Line]) -> list[float]:
    credits = [sum(d.score for d in found) / clause["count"]]
    if "color" in clause:
        credits.append(sum(d.score for d in found if own_color(d) == clause["color"]) / clause["count"])
    if "position" in clause:
        relation, target = clause["position"]
        there = groups[target] if len(groups[target]) == clauses[target]["count"] else []
        credits.append(_position(relation, found, there, clause["count"]))
    return credits


def _position(relation: str, found: Group, targets: Group, count: int) -> float:
    """Share of the wanted pairs in the relation, times the least confidence among their objects."""
    if not found or not targets:
        return 0.0
    holds = sum(relation in relations(d.box, t.box) for d in found for t in targets)
    return holds / (count * len(targets)) * min(d.score for d in (*found, *targets))
