"""What T2I-CompBench's complex category reads from a sentence: two objects around a relation, and the prompt's type.

`strict` as in `compbench_prompts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from diffalign.evaluation.compbench_prompts import FLAT_RELATIONS, Pair, find_relation, labels_of
from diffalign.evaluation.judges import ParsedPrompt, Word

COMPLEX_RELATIONS = ("on top of", "on bottom of", "on the left", "on the right", "next to", "on side of", "near")

Kind = Literal["spatial", "action", "both"]


def read_complex_pair(prompt: str, parsed: ParsedPrompt, *, strict: bool = True) -> Pair | None:
    """The two objects around a relation of a free sentence; None where the rules find none.

    Released rule: around every relation phrase the nearest noun or proper noun before it, and the first noun after it
    (else the first proper noun that another does not follow); anything but two objects in all gives None. Mended: the
    objects around the first phrase that has both.
    """
    found: list[list[str]] = []
    texts = [word.text for word in parsed.words]
    for i in range(len(texts)):
        length = next((n for n in (3, 2, 1) if " ".join(texts[i : i + n]) in COMPLEX_RELATIONS), 0)
        if length:
            found.append(_around(parsed.words, i, i + length, whole=not strict))
    objects = [name for pair in found for name in pair] if strict else next((p for p in found if len(p) == 2), [])
    if len(objects) != 2:
        return None
    first, second = (labels_of(name, strict=strict) for name in objects)
    return Pair(first, second, find_relation(prompt, FLAT_RELATIONS, strict=strict))


def complex_kind(prompt: str) -> Kind:
    """Type of a prompt of the complex category: a spatial relation, an action, or both.

    The released lists of types (complex_val_spatial.txt, complex_val_action.txt) as a rule: a relation phrase makes it
    spatial, and any verb but a bare "is" or "was" an action. It gives the released type for 300 of 300 validation and
    698 of 700 training prompts.
    """
    text = prompt.lower()
    phrases = "|".join((*COMPLEX_RELATIONS, "on the side of", "below (?=the)"))
    if not re.search(rf"\b(?:{phrases})", text):
        return "action"
    return "spatial" if re.search(r"\b(?:is|was|are|were)\b(?! \w+(?:ed|ing)\b)", text) else "both"


def _around(words: Sequence[Word], start: int, end: int, *, whole: bool) -> list[str]:
    """Objects before word `start` and from word `end` on, each if there is one."""
    before = next((i for i in range(start - 1, -1, -1) if words[i].kind in ("NOUN", "PROPN")), None)
    nouns = [i for i in range(end, len(words)) if words[i].kind == "NOUN"]
    proper = [i for i in range(end, len(words) - 1) if words[i].kind == "PROPN" and words[i + 1].kind != "PROPN"]
    after = next(iter(nouns or proper), None)
    return [_name_at(words, i, whole=whole) for i in (before, after) if i is not None]


def _name_at(words: Sequence[Word], i: int, *, whole: bool) -> str:
    """The noun at i, or the whole run of nouns around it."""
    first = last = i
    if whole:
        while first > 0 and words[first - 1].kind in ("NOUN", "PROPN"):
            first -= 1
        while last + 1 < len(words) and words[last + 1].kind in ("NOUN", "PROPN"):
            last += 1
    return " ".join(word.text for word in words[first : last + 1])
