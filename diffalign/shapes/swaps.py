"""Lines that differ from a line in one word, so that its scenes refute them: the hard negatives of a caption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator

from diffalign.evaluation.geneval_prompts import RELATIONS, Line, wording
from diffalign.shapes.vocabulary import CLASSES, COLOURS, COUNTS

OPPOSITE = {"right of": "left of", "below": "above"}


def meaning(line: Line) -> Hashable:
    """What a line says in whatever order: equal for "a ring above a heart" and "a heart below a ring"."""
    clauses = line["include"]
    if line["tag"] != "position":
        return line["tag"], frozenset((c["class"], c["count"], c.get("color")) for c in clauses)
    reference, named = (c["class"] for c in clauses)
    relation = clauses[1]["position"][0]
    if relation in OPPOSITE:
        return line["tag"], reference, OPPOSITE[relation], named
    return line["tag"], named, relation, reference


def _changed(line: Line, index: int, key: str, value: object) -> Line:
    """The line with one entry of one clause replaced, and all that follows from it."""
    new = copy.deepcopy(line)
    clause = new["include"][index]
    clause[key] = value
    for excluded in new.get("exclude", []):
        excluded["class"], excluded["count"] = clause["class"], clause["count"] + 1
    new["prompt"] = wording(new)
    return new


def _other(line: Line, key: str, values: tuple[object, ...]) -> Iterator[Line]:
    """The line with ``key`` of one clause at each of ``values`` that no clause has."""
    taken = [clause.get(key) for clause in line["include"]]
    for index, clause in enumerate(line["include"]):
        if key in clause:
            yield from (_changed(line, index, key, value) for value in values if value not in taken)


def colours(line: Line) -> list[Line]:
    """One colour replaced by one that the line does not name."""
    return list(_other(line, "color", tuple(COLOURS)))


def counts(line: Line) -> list[Line]:
    """The count replaced, in counting lines."""
    return list(_other(line, "count", COUNTS)) if line["tag"] == "counting" else []


def relations(line: Line) -> list[Line]:
    """The relation replaced."""
    return list(_other(line, "position", tuple([name, 0] for name in RELATIONS)))


def nouns(line: Line) -> list[Line]:
    """One class replaced by one that the line does not name."""
    return list(_other(line, "class", CLASSES))


def exchanges(line: Line) -> list[Line]:
    """The two colours of an attribution line exchanged: every word stays, none is where it was."""
    if line["tag"] != "color_attr":
        return []
    first, second = (clause["color"] for clause in line["include"])
    return [_changed(_changed(line, 0, "color", second), 1, "color", first)]


KINDS: dict[str, Callable[[Line], list[Line]]] = {
    "colour": colours,
    "count": counts,
    "relation": relations,
    "noun": nouns,
    "exchange": exchanges,
}
"""Kind of swap -> every line that it makes of a line, held-out combinations included; none where it does not apply."""
