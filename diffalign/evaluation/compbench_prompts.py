"""What T2I-CompBench's spatial categories read from a prompt: two objects and their relation.

`strict=True` reads as the released code does (Karine-Huang/T2I-CompBench, 1b709499), `strict=False` as it was meant;
docs/suites/compbench.md lists the differences. Word classes come from a parser (`diffalign.evaluation.judges`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from diffalign.evaluation.judges import ParsedPrompt, Word

PEOPLE = ("girl", "boy", "man", "woman")
FLAT_RELATIONS = (
    "on side of",
    "next to",
    "near",
    "on the left of",
    "on the right of",
    "on the bottom of",
    "on the top of",
    "on top of",
)
"""Looked up in this order, as substrings."""
DEPTH_RELATIONS = ("in front of", "behind", "hidden")
PLACES = frozenset({"left", "right", "top", "bottom", "side", "front"})
MENDED_FORMS = {
    r"on (?:the )?side of|beside": "on side of",
    r"next to": "next to",
    r"near": "near",
    r"(?:on|to) the left(?: side)?(?: of)?": "on the left of",
    r"(?:on|to) the right(?: side)?(?: of)?": "on the right of",
    r"(?:on|at) (?:the )?bottom of|below|under": "on the bottom of",
    r"on (?:the )?top of|above": "on the top of",
    r"in front of": "in front of",
    r"behind": "behind",
    r"hidden": "hidden",
}
"""Whole-word forms of each relation; the one that comes first in the prompt counts."""


class Pair(NamedTuple):
    """Two objects and their relation.

    Attributes:
        first: labels that count as the first object, the most specific first.
        second: labels of the second.
        relation: one of `FLAT_RELATIONS` or `DEPTH_RELATIONS`, None where the prompt has none that the rules know.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    relation: str | None


def as_released(prompt: str) -> str:
    """The prompt as the released code has it: from a file name, up to the first underscore."""
    return prompt.split("_")[0]


def find_relation(prompt: str, relations: Sequence[str], *, strict: bool = True) -> str | None:
    """The relation of a prompt, among `relations`."""
    if strict:
        return next((relation for relation in relations if relation in prompt), None)
    found = []
    for form, relation in MENDED_FORMS.items():
        match = re.search(rf"\b(?:{form})\b", prompt.lower())
        if match and relation in relations:
            found.append((match.start(), relation))
    return min(found)[1] if found else None


def read_pair(prompt: str, parsed: ParsedPrompt, relations: Sequence[str], *, strict: bool = True) -> Pair:
    """First and last object of a prompt and their relation.

    Args:
        prompt: the text.
        parsed: its words.
        relations: `FLAT_RELATIONS` or `DEPTH_RELATIONS`.
        strict: objects are single NOUN tokens; else whole names ("traffic light", or "light"), places left out.

    Raises:
        ValueError: the prompt has no noun.
    """
    names = _single_nouns(parsed) if strict else object_names(parsed)
    if not names:
        raise ValueError(f"prompt {prompt!r} names no object: the parser found no noun in it")
    ends = (names[0], names[-1])
    first, second = (labels_of(name, strict=strict) for name in ends)
    return Pair(first, second, find_relation(prompt, relations, strict=strict))


def labels_of(name: str, *, strict: bool = True) -> tuple[str, ...]:
    """Labels that a detector may give an object of this name; people are "person"."""
    if strict:
        return ("person",) if name in PEOPLE else (name,)
    head = name.split()[-1]
    general = ("person",) if head in PEOPLE else ()
    return tuple(dict.fromkeys((name, head, *general)))


def object_names(parsed: ParsedPrompt) -> list[str]:
    """Runs of nouns ("traffic light") in order, without words of place."""
    names, run = [], []
    for word in [*parsed.words, Word("", "END")]:
        if word.kind in ("NOUN", "PROPN") and word.text.lower() not in PLACES:
            run.append(word.text)
        elif run:
            names.append(" ".join(run))
            run = []
    return names


def _single_nouns(parsed: ParsedPrompt) -> list[str]:
    return [word.text for word in parsed.words if word.kind == "NOUN"]
