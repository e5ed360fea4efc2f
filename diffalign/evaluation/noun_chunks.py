"""A small parser for the fixed prompt forms of the benchmarks: words with their class, and noun chunks.

It knows closed word lists and a few rules on order, and stands in where spaCy's English model is not installed. The
published scores of T2I-CompBench were made with spaCy's `en_core_web_sm`: agreement with it is measured per category
in docs/suites/compbench.md. On the fixed forms ("a horse on the left of a car", "a red cup and a blue bowl") they
agree almost always; on free sentences they often differ, and there spaCy should be used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffalign.evaluation import lexicon
from diffalign.evaluation.judges import ParsedPrompt, Word

NAME = "rules"
_TOKENS = re.compile(r"\d+(?::\d+)?|'s\b|[^\W\d_]+|[^\w\s]|_")
_LISTS = {
    "DET": lexicon.DETERMINERS,
    "POSS": lexicon.POSSESSIVES,
    "PRON": lexicon.PRONOUNS,
    "CCONJ": lexicon.CONJUNCTIONS,
    "AUX": lexicon.AUXILIARIES,
    "NUM": lexicon.NUMBERS,
    "ADP": lexicon.PREPOSITIONS,
    "SCONJ": lexicon.SUBORDINATORS,
    "ADV": lexicon.ADVERBS,
    "ADJ?": lexicon.ADJECTIVES,
    "VERB?": lexicon.VERBS,
}
_INSIDE = {"DET", "NUM", "ADJ", "NOUN"}


def parse(prompt: str) -> ParsedPrompt:
    """Words and noun chunks of a prompt.

    A chunk is a run of determiners, numbers, adjectives and nouns up to its last noun; adjectives may be joined by
    "and" or commas. Chunks are substrings of the prompt.
    """
    spans = [match.span() for match in _TOKENS.finditer(prompt)]
    texts = [prompt[start:end] for start, end in spans]
    classes = classify(texts)
    words = tuple(Word(text, kind) for text, kind in zip(texts, classes, strict=True))
    chunks = tuple(prompt[spans[first][0] : spans[last][1]] for first, last in chunk_spans(texts, classes))
    return ParsedPrompt(words, chunks)


parse.name = NAME  # type: ignore[attr-defined]


def classify(texts: Sequence[str]) -> list[str]:
    """Universal part-of-speech tags of tokens, in two passes: each word by itself, then by its neighbours."""
    classes = [_alone(text) for text in texts]
    for i, kind in enumerate(classes):
        before = classes[i - 1] if i else "START"
        after, then = [*classes[i + 1 : i + 3], "END", "END"][:2]
        classes[i] = _in_context(kind, texts[i].lower(), before, after, then)
    return classes


def _alone(text: str) -> str:
    """Class of a word by the lists and its ending; `?` marks what its neighbours decide."""
    word = text.lower()
    for kind, words in _LISTS.items():
        if word in words:
            return kind
    if word[0].isdigit():
        return "NUM"
    if not word[0].isalpha():
        return "PUNCT"
    if len(word) > 4 and word not in lexicon.NOUNS_BY_ENDING:
        if word.endswith("ly"):
            return "ADV"
        if word.endswith(("ing", "ed")):
            return "VERB?"
    return "NOUN"


def _in_context(kind: str, word: str, before: str, after: str, then: str) -> str:
    """Class of a word between its neighbours (the word before it is decided already, the two after it are not)."""
    joins = after in ("NOUN", "ADJ?", "VERB?", "NUM")
    if kind == "POSS":
        return "DET"
    if kind == "ADJ?":
        listed = after in ("CCONJ", "PUNCT") and then in ("ADJ?", "VERB?")
        return "ADJ" if joins or listed or before == "AUX" else "NOUN"
    if kind == "VERB?":
        if before in ("DET", "ADJ", "NUM") and (joins or not word.endswith("ed")):
            return "ADJ" if joins else "NOUN"
        return "VERB"
    if kind == "ADP" and before == "DET":  # "the inside"
        return "NOUN"
    return kind


def chunk_spans(texts: Sequence[str], classes: Sequence[str]) -> list[tuple[int, int]]:
    """First and last token of each noun chunk."""
    spans, start = [], 0
    while start < len(classes):
        if classes[start] not in _INSIDE:
            start += 1
            continue
        end = start
        while end < len(classes) and _continues(classes, start, end):
            end += 1
        nouns = [i for i in range(start, end) if classes[i] == "NOUN"]
        if nouns:
            spans.append((start, nouns[-1]))
        start = (nouns[-1] + 1) if nouns else end
    return spans


def _continues(classes: Sequence[str], start: int, i: int) -> bool:
    """Whether token i belongs to the chunk that begins at `start`."""
    kind = classes[i]
    if kind in ("DET", "NUM"):
        return i == start or (kind == "NUM" and classes[i - 1] == "DET")
    if kind in ("CCONJ", "PUNCT"):  # between adjectives only: "black and white cat", "smooth, white marble"
        following = classes[i + 1] if i + 1 < len(classes) else "END"
        return i > start and classes[i - 1] == "ADJ" and following == "ADJ"
    return kind in ("ADJ", "NOUN")
