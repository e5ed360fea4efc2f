"""GenEval 2's Soft-TIFA as pure functions over answer probabilities (Kamath et al., arXiv 2512.16853).

Rules as released in facebookresearch/GenEval2 (a6e82d2, evaluation.py and soft_tifa_analysis.py). A prompt has
questions ("How many dogs are in the image?", "Is the dog red?"); an atom's score is the probability that a model
answers right by its first token. `strict=True` keeps one released quirk: for a number above ten the digits are the word
"other" (`other_number`); no prompt of the benchmark has one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

SKILLS = ("object", "attribute", "count", "position", "verb")
ATOM_COUNTS = range(3, 11)
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
YES = ("Yes", "yes", " yes", " Yes")


def ask(question: str) -> str:
    """The question as the judge is asked."""
    return f"{question} Answer in one word."


def spellings(question: str, answer: str, *, strict: bool = True) -> list[str]:
    """Spellings of the right answer whose first tokens count.

    Args:
        question: the question; those that begin with "How many" are answered by a number word.
        answer: the right answer: "three", or anything for yes-or-no questions (all are asked so that yes is right).
        strict: see the module.
    """
    if not question.startswith("How many"):
        return list(YES)
    words = [answer, answer.capitalize(), f" {answer}", f" {answer.capitalize()}"]
    if answer in NUMBER_WORDS:
        digits = str(NUMBER_WORDS.index(answer) + 1)
    elif strict:
        digits = "other"
    else:
        return words
    return [*words, digits, f" {digits}"]


def mean_score(atoms: Sequence[float]) -> float:
    """Arithmetic mean of a prompt's atoms (Soft-TIFA AM, the estimate per atom), in [0, 1]."""
    _check(atoms)
    return sum(atoms) / len(atoms)


def geometric_score(atoms: Sequence[float]) -> float:
    """Geometric mean of a prompt's atoms (Soft-TIFA GM, the estimate per prompt), in [0, 1]; 0 if any atom is 0."""
    _check(atoms)
    return math.exp(sum(map(math.log, atoms)) / len(atoms)) if min(atoms) > 0 else 0.0


def hard_score(predictions: Sequence[str], accepted: Sequence[Sequence[str]]) -> float:
    """TIFA: the share of questions whose first answer token, in lower case, is an accepted spelling."""
    if len(predictions) != len(accepted) or not predictions:
        raise ValueError(f"{len(predictions)} answers to {len(accepted)} questions; give one each, at least one")
    return sum(p.lower() in spelt for p, spelt in zip(predictions, accepted, strict=True)) / len(predictions)


def by_skill(atoms: Sequence[Sequence[float]], skills: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean of all atoms of each skill, in [0, 1].

    Raises:
        ValueError: lengths differ, or an unknown skill.
    """
    pooled: dict[str, list[float]] = {}
    for values, names in zip(atoms, skills, strict=True):
        if len(values) != len(names):
            raise ValueError(f"{len(values)} atoms but {len(names)} skills")
        for value, name in zip(values, names, strict=True):
            if name not in SKILLS:
                raise ValueError(f"skill {name!r} is unknown; valid: {', '.join(SKILLS)}")
            pooled.setdefault(name, []).append(value)
    return {name: sum(pooled[name]) / len(pooled[name]) for name in SKILLS if name in pooled}


def by_atom_count(atoms: Sequence[Sequence[float]], counts: Sequence[int]) -> dict[int, float]:
    """Mean geometric score of the prompts of each number of atoms (articles have a question but are no atom)."""
    pooled: dict[int, list[float]] = {}
    for values, count in zip(atoms, counts, strict=True):
        pooled.setdefault(count, []).append(geometric_score(values))
    return {count: sum(pooled[count]) / len(pooled[count]) for count in sorted(pooled)}


def check_line(line: Mapping[str, object]) -> None:
    """Refuses a record that is not a line of geneval2_data.jsonl.

    Raises:
        ValueError: a field is missing or does not fit.
    """
    for key, kind in (("atom_count", int), ("vqa_list", list), ("skills", list)):
        if not isinstance(line.get(key), kind):
            raise ValueError(f"a GenEval 2 line needs {key!r} ({kind.__name__}), got {sorted(line)}")
    questions, skills = line["vqa_list"], line["skills"]
    assert isinstance(questions, list) and isinstance(skills, list)
    if not questions or any(not isinstance(pair, list) or len(pair) != 2 for pair in questions):
        raise ValueError("vqa_list must hold [question, answer] pairs, at least one")
    if len(skills) != len(questions) or not set(skills) <= set(SKILLS):
        raise ValueError(f"skills must name one of {', '.join(SKILLS)} for each question, got {skills}")


def _check(atoms: Sequence[float]) -> None:
    if not atoms:
        raise ValueError("a prompt has at least one atom; none was given")
    wrong = [a for a in atoms if not 0 <= a <= 1 + 1e-6]
    if wrong:
        raise ValueError(f"an atom's score is a probability in [0, 1], got {wrong[0]}")
