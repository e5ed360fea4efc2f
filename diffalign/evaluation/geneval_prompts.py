"""GenEval prompt lines for any list of classes and colours (Ghosh et al. 2023, arXiv 2310.11513, prompt set form).

A line is GenEval's own record: ``{"tag", "include": [...], "exclude"?: [...], "prompt"}``. In the ``position`` task the
second include clause is the one the prompt names first: "a photo of a dog right of a bear" has the bear at index 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Line = dict[str, Any]

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = ("left of", "right of", "above", "below")
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def with_article(noun: str) -> str:
    """``noun`` behind "a" or "an", chosen by its first letter as GenEval does."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def plural(noun: str) -> str:
    """GenEval's plural: "es" after an s, else "s" (so it says "benchs" and "knifes")."""
    return noun + ("es" if noun.endswith("s") else "s")


def phrase(clause: Mapping[str, Any]) -> str:
    """The words of one include clause: article or number, colour if any, class.

    Raises:
        ValueError: if the count has no number word.
    """
    count = clause["count"]
    if not 1 <= count < len(NUMBER_WORDS):
        raise ValueError(f"count {count} has no number word; use 1 to {len(NUMBER_WORDS) - 1}")
    noun = clause["class"] if count == 1 else plural(clause["class"])
    if "color" in clause:
        noun = f"{clause['color']} {noun}"
    return with_article(noun) if count == 1 else f"{NUMBER_WORDS[count]} {noun}"


def wording(line: Mapping[str, Any]) -> str:
    """The prompt that GenEval writes for a line's ``include`` clauses.

    Raises:
        ValueError: if there are no clauses, or more than two.
    """
    clauses = line["include"]
    if len(clauses) == 1:
        return f"a photo of {phrase(clauses[0])}"
    if len(clauses) != 2:
        raise ValueError(f"{len(clauses)} include clauses; GenEval's wording knows one or two")
    first, second = clauses
    if "position" in second:
        return f"a photo of {phrase(second)} {second['position'][0]} {phrase(first)}"
    return f"a photo of {phrase(first)} and {phrase(second)}"


def _line(tag: str, include: list[dict[str, Any]], exclude: list[dict[str, Any]] | None = None) -> Line:
    line: Line = {"tag": tag, "include": include}
    if exclude:
        line["exclude"] = exclude
    line["prompt"] = wording(line)
    return line


def single_object(name: str) -> Line:
    """ "a photo of a bench" """
    return _line("single_object", [{"class": name, "count": 1}])


def two_object(first: str, second: str) -> Line:
    """ "a photo of a bench and a dog" """
    return _line("two_object", [{"class": first, "count": 1}, {"class": second, "count": 1}])


def counting(name: str, count: int) -> Line:
    """ "a photo of three dogs"; four or more are excluded, so the count is exact."""
    return _line("counting", [{"class": name, "count": count}], [{"class": name, "count": count + 1}])


def colors(name: str, color: str) -> Line:
    """ "a photo of a red dog" """
    return _line("colors", [{"class": name, "count": 1, "color": color}])


def position(name: str, relation: str, reference: str) -> Line:
    """ "a photo of a dog left of a bench": ``name`` stands in ``relation`` to ``reference``.

    Raises:
        ValueError: if the relation is not one of ``RELATIONS``.
    """
    if relation not in RELATIONS:
        raise ValueError(f"relation {relation!r} is unknown; use one of {', '.join(RELATIONS)}")
    return _line("position", [{"class": reference, "count": 1}, {"class": name, "count": 1, "position": [relation, 0]}])


def color_attr(first: str, first_color: str, second: str, second_color: str) -> Line:
    """ "a photo of a red dog and a blue bench" """
    return _line(
        "color_attr",
        [{"class": first, "count": 1, "color": first_color}, {"class": second, "count": 1, "color": second_color}],
    )


def every_line(classes: Sequence[str], color_names: Sequence[str], counts: Sequence[int] = (2, 3, 4)) -> list[Line]:
    """All lines of all six tasks over a vocabulary, in a fixed order.

    Pairs are ordered and of two different classes; attribution uses two different colours. The list grows with
    (classes x colours)^2: draw from it for a large vocabulary.
    """
    pairs = [(a, b) for a in classes for b in classes if a != b]
    lines = [single_object(name) for name in classes]
    lines += [two_object(a, b) for a, b in pairs]
    lines += [counting(name, count) for name in classes for count in counts]
    lines += [colors(name, color) for name in classes for color in color_names]
    lines += [position(a, relation, b) for a, b in pairs for relation in RELATIONS]
    lines += [color_attr(a, c, b, d) for a, b in pairs for c in color_names for d in color_names if c != d]
    return lines
