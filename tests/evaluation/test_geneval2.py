"""Compared outside the tree with evaluation.py and soft_tifa_analysis.py (GenEval2, a6e82d2) on its 800 prompts."""

from __future__ import annotations

import random

import pytest

from diffalign.evaluation import geneval2

LINE = {
    "prompt": "two white dogs",
    "atom_count": 3,
    "vqa_list": [
        ["How many dogs are in the image?", "two"],
        ["Are the dogs white?", "Yes"],
        ["Are there any dogs?", "Yes"],
    ],
    "skills": ["count", "attribute", "object"],
}


@pytest.mark.parametrize(
    ("atoms", "arithmetic", "geometric"),
    [
        ([0.9, 0.8, 0.4], 0.7, 0.660385),
        ([1.0], 1, 1),
        ([1.0, 1.0, 1.0], 1, 1),
        ([1.0, 0.0, 1.0], 2 / 3, 0),  # one atom at 0 takes the prompt
        ([0.25, 1.0], 0.625, 0.5),
        ([0.5] * 10, 0.5, 0.5),
        ([0.81, 1.0], 0.905, 0.9),
        ([0.1, 0.1, 0.1], 0.1, 0.1),
        ([0.0], 0, 0),
    ],
)
def test_means_of_known_atoms(atoms, arithmetic, geometric):
    assert geneval2.mean_score(atoms) == pytest.approx(arithmetic)
    assert geneval2.geometric_score(atoms) == pytest.approx(geometric, abs=1e-6)


def test_the_geometric_mean_lies_between_the_worst_atom_and_the_arithmetic_one():
    rng = random.Random(0)
    for _ in range(200):
        atoms = [rng.random() for _ in range(rng.randint(1, 12))]
        assert min(atoms) - 1e-12 <= geneval2.geometric_score(atoms) <= geneval2.mean_score(atoms) + 1e-12


@pytest.mark.parametrize(
    ("question", "answer", "strict", "expected"),
    [
        ("How many dogs are in the image?", "three", True, ["three", "Three", " three", " Three", "3", " 3"]),
        ("How many dogs are in the image?", "ten", True, ["ten", "Ten", " ten", " Ten", "10", " 10"]),
        (
            "How many dogs are in the image?",
            "twelve",
            True,
            ["twelve", "Twelve", " twelve", " Twelve", "other", " other"],
        ),
        ("How many dogs are in the image?", "twelve", False, ["twelve", "Twelve", " twelve", " Twelve"]),
        ("Is the dog red?", "Yes", True, ["Yes", "yes", " yes", " Yes"]),
    ],
)
def test_spellings_of_known_answers(question, answer, strict, expected):
    assert geneval2.spellings(question, answer, strict=strict) == expected


def test_skills_pool_atoms_and_atom_counts_pool_prompts():
    atoms = [[0.9, 0.8, 0.4], [0.5, 0.25, 0.6, 0.7, 0.3]]
    skills = [["count", "attribute", "object"], ["verb", "position", "count", "object", "attribute"]]
    expected = {"object": 0.55, "attribute": 0.55, "count": 0.75, "position": 0.25, "verb": 0.5}  # released
    assert geneval2.by_skill(atoms, skills) == pytest.approx(expected)
    by_count = geneval2.by_atom_count([[1.0], [0.25, 1.0], [0.0]], [3, 3, 5])
    assert by_count == pytest.approx({3: 0.75, 5: 0})


def test_hard_score_counts_accepted_first_tokens():
    accepted = [geneval2.spellings(*pair) for pair in LINE["vqa_list"]]
    assert geneval2.hard_score(["Two", "YES", "no"], accepted) == pytest.approx(2 / 3)
    assert geneval2.hard_score(["2", "yes", " yes"], accepted) == 1
    with pytest.raises(ValueError, match="2 answers to 3 questions"):
        geneval2.hard_score(["2", "yes"], accepted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"atom_count": None}, "'atom_count'"),
        ({"vqa_list": []}, "at least one"),
        ({"vqa_list": [["q"]], "skills": ["count"]}, "pairs"),
        ({"skills": ["count"]}, "for each question"),
        ({"skills": ["count", "colour", "object"]}, "skills must name one of"),
    ],
)
def test_lines_of_another_form_are_refused(change, said):
    geneval2.check_line(LINE)
    with pytest.raises(ValueError, match=said):
        geneval2.check_line({**LINE, **change})


def test_atoms_are_probabilities():
    for atoms, said in (([], "at least one atom"), ([0.5, 1.5], "1.5")):
        with pytest.raises(ValueError, match=said):
            geneval2.mean_score(atoms)
