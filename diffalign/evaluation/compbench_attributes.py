"""T2I-CompBench's scores by questions and similarity: attributes, non-spatial, complex (arXiv 2307.06350).

Rules as released in Karine-Huang/T2I-CompBench (1b709499): BLIPvqa_eval/BLIP_vqa.py, CLIPScore_eval/CLIP_similarity.py
and 3_in_1_eval/3_in_1.py. `strict=True` keeps the released quirks, `strict=False` mends them: the first eight questions
only (`eight_questions`), four decimals (`rounding`), questions on places and pronouns such as "top" behind another
article or "it" (`place_questions`), adjectives cut out of the sentence for CLIP (`adjectives_removed`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from diffalign.evaluation.compbench_complex import Kind
from diffalign.evaluation.compbench_prompts import PLACES
from diffalign.evaluation.judges import ParsedPrompt

MOST_QUESTIONS = 8
NOT_ASKED = ("top", "the side", "the left", "the right")
PRONOUNS = frozenset("it its they them he she him her his their who which that what you i we us".split())
ARTICLES = frozenset({"the", "a", "an"})


def questions(parsed: ParsedPrompt, *, strict: bool = True) -> list[str]:
    """One yes-or-no question for each noun chunk: "a red cup?".

    Args:
        parsed: the prompt.
        strict: released form: at most eight, without four chunks on places; else all but places and pronouns.
    """
    if strict:
        return [f"{chunk}?" for chunk in parsed.chunks if chunk not in NOT_ASKED][:MOST_QUESTIONS]
    return [f"{chunk}?" for chunk in parsed.chunks if not _is_idle(chunk)]


def clean(question: str) -> str:
    """The question as BLIP reads it: lower case, without `.!"()*#:;~`."""
    return re.sub(r'[.!"()*#:;~]', "", question.lower()).rstrip(" ")


def attribute(probabilities: Sequence[float], *, strict: bool = True) -> float:
    """BLIP-VQA score of one image: the product of P(yes) over its questions, in [0, 1].

    Args:
        probabilities: P(yes) / (P(yes) + P(no)) of each question.
        strict: each probability and the product rounded to four decimals.

    Raises:
        ValueError: no question, or a probability outside [0, 1]. The released code gives 1 to an image without a
            question.
    """
    if not probabilities:
        raise ValueError("an attribute score needs at least one question; the prompt has no noun chunk to ask for")
    wrong = [p for p in probabilities if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"P(yes) must lie in [0, 1], got {wrong[0]}: judges return normalised probabilities")
    if not strict:
        return math.prod(probabilities)
    return round(math.prod(round(p, 4) for p in probabilities[:MOST_QUESTIONS]), 4)


def similarity_text(prompt: str, parsed: ParsedPrompt | None = None, *, strict: bool = True) -> str:
    """Text that CLIP compares the image with.

    Args:
        prompt: the text; used as it is for the non-spatial category.
        parsed: the parsed prompt, for the complex category: words other than adjectives, joined by blanks.
        strict: released form; mended, the complex category uses the whole prompt too.
    """
    if parsed is None or not strict:
        return prompt
    return " ".join(word.text for word in parsed.words if word.kind != "ADJ")


def three_in_one(kind: Kind, attribute: float, spatial: float, similarity: float) -> float:
    """Score of one image of the complex category: the mean of what its type of prompt asks for.

    Args:
        kind: `compbench_complex.complex_kind`.
        attribute: BLIP-VQA score.
        spatial: 2-D spatial score with objects of `compbench_complex.read_complex_pair`.
        similarity: CLIP's cosine, which has another scale than the other two.

    Raises:
        ValueError: unknown kind.
    """
    parts = {
        "spatial": (attribute, spatial),
        "action": (attribute, similarity),
        "both": (attribute, spatial, similarity),
    }
    if kind not in parts:
        raise ValueError(f"prompt type {kind!r} is unknown; valid: {', '.join(parts)}")
    return sum(parts[kind]) / len(parts[kind])


def _is_idle(chunk: str) -> bool:
    """Whether a chunk is a place or a pronoun, which no picture can show by itself."""
    words = [word for word in chunk.lower().split() if word not in ARTICLES]
    return all(word in PLACES or word in PRONOUNS for word in words)
