"""Counted objects of a T2I-CompBench++ numeracy prompt.

`strict=True` reads as the released code does (UniDet_eval/numeracy_eval.py, 1b709499): a fixed list of objects, number
words up to eight in lower case, directly before the object. Quirks that `strict=False` mends: objects that the list
lacks are not seen (`fixed_vocabulary`); nine, ten, digits and capitals are not numbers (`small_numbers`); "a dogs"
counts the dogs but drops the number, and all later numbers move one place (`shifted_numbers`); television is searched
as such, since the alias is spelt "telivision" (`television`). A prompt on which the released code stops with an error
raises a ValueError in both forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diffalign.evaluation.judges import ParsedPrompt, Word

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
MORE_NUMBERS = ("nine", "ten", "eleven", "twelve")
SINGULAR = ("a", "an", "one")
OBJECTS = tuple(
    "bottle cup cake bird knife microwave desk book helmet pillow bowl flag stool toy pen microphone bread fish "
    "camera candle paddle drum guitar tomato tent kite lemon strawberry suitcase pear printer duck hamburger deer "
    "egg ship chicken peach helicopter swan camel goldfish shrimp banana balloon giraffe frog horse man rabbit "
    "bicycle bee girl mouse painting lamp cow train vase pig sheep airplane woman phone boy plate computer couch "
    "turtle bag car backpack dog television butterfly cat person table sofa key refrigerator clock chair truck boat "
    "bear sink apple".split()
)
IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "mouse": "mice", "child": "children", "foot": "feet",
    "goose": "geese", "tooth": "teeth", "knife": "knives", "leaf": "leaves", "wolf": "wolves", "loaf": "loaves",
    "fish": "fish", "goldfish": "goldfish", "sheep": "sheep", "deer": "deer", "shrimp": "shrimp",
}  # fmt: skip
ALIASES = {
    "boy": "person", "girl": "person", "man": "person", "woman": "person", "ship": "boat", "goldfish": "fish",
    "painting": "picture",
}  # fmt: skip


class Counted(NamedTuple):
    """An object of a prompt as the detector labels it, and how many; None for a number that the released code loses."""

    name: str
    number: int | None


def plural(name: str) -> str:
    """English plural of a singular noun."""
    if name in IRREGULAR:
        return IRREGULAR[name]
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "x", "z", "ch", "sh", "to")) else "s")


PLURALS = {plural(name): name for name in OBJECTS}


def singular(word: str) -> str:
    """English singular of a noun, by the lists and the common endings."""
    for one, many in (*IRREGULAR.items(), *((name, form) for form, name in PLURALS.items())):
        if word == many:
            return one
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def read_counts(prompt: str, parsed: ParsedPrompt, *, strict: bool = True) -> list[Counted]:
    """Counted objects in their order.

    Args:
        prompt: the text, for the message.
        parsed: its words.
        strict: released form; else mended.

    Raises:
        ValueError: no object is counted, or the released code stops at this prompt.
    """
    try:
        found = _released(parsed.words) if strict else _mended(parsed.words)
    except LookupError as error:
        raise ValueError(f"prompt {prompt!r}: {error.args[0]}, where the released code stops with an error") from error
    if not found:
        known = "of the released list " if strict else ""
        raise ValueError(f"prompt {prompt!r} counts no object {known}by a number word before it")
    return found


def _released(words: Sequence[Word]) -> list[Counted]:
    names: list[str] = []
    numbers: list[int] = []
    texts = [word.text for word in words]
    for text, following in zip(texts, [*texts[1:], None], strict=True):
        if text not in (*SINGULAR, *NUMBERS):
            continue
        if following is None:
            raise LookupError(f"the number word {text!r} is the last word")
        if following in OBJECTS and text in SINGULAR:
            names.append(following)
            numbers.append(1)
        elif following in PLURALS:
            names.append(PLURALS[following])
            numbers += [NUMBERS.index(text) + 1] if text in NUMBERS else []
        elif following in OBJECTS:
            raise LookupError(f"{text!r} stands before the singular {following!r}")
    aligned = [*numbers, *[None] * (len(names) - len(numbers))]
    return [Counted(ALIASES.get(name, name), number) for name, number in zip(names, aligned, strict=True)]


def _mended(words: Sequence[Word]) -> list[Counted]:
    found = []
    aliases = {**ALIASES, "television": "tv"}
    for i, word in enumerate(words):
        number = _number(word.text.lower())
        if number is None:
            continue
        start = next((j for j in range(i + 1, len(words)) if words[j].kind != "ADJ"), len(words))
        end = next((j for j in range(start, len(words)) if words[j].kind not in ("NOUN", "PROPN")), len(words))
        if start < end:
            head = singular(words[end - 1].text.lower())
            name = " ".join([*(w.text.lower() for w in words[start : end - 1]), head])
            if word.text.lower() not in ("a", "an") or head in OBJECTS:  # "for a picnic" counts nothing
                found.append(Counted(aliases.get(name, name), number))
    return found


def _number(text: str) -> int | None:
    if text in ("a", "an"):
        return 1
    table = (*NUMBERS, *MORE_NUMBERS)
    return table.index(text) + 1 if text in table else int(text) if text.isdigit() else None
