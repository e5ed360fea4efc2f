from __future__ import annotations

import pytest

from diffalign.evaluation.compbench_complex import COMPLEX_RELATIONS, complex_kind, read_complex_pair
from diffalign.evaluation.judges import ParsedPrompt, Word
from tests.evaluation.benchmark_data import compbench

# Types of complex_val.txt by complex_val_spatial.txt and complex_val_action.txt (1b709499), run by run.
RELEASED_KINDS = (
    "s2 a2 s1 a1 s1 a1 s2 a1 s4 a1 s7 a1 s1 a1 s4 a1 s11 a1 s4 a1 s1 a3 s2 a1 s11 a1 s3 a1 s4 a4 b1 a5 b5 a10 b1 "
    "a1 b1 a2 b1 a1 b1 a6 b4 a3 b1 a4 b1 a7 b2 a3 b1 a5 b1 a1 b2 a3 b1 a6 b1 a9 b1 a16 b1 a4 b1 a3 b1 a12 b1 a16 "
    "b1 a74"
)


def words(text: str) -> ParsedPrompt:
    """ "dog/NOUN near/ADP" """
    return ParsedPrompt(tuple(Word(*one.split("/")) for one in text.split()), ())


@pytest.mark.parametrize(
    ("text", "released", "mended"),
    [
        ("hat/NOUN was/AUX on/ADP top/NOUN of/ADP coat/NOUN rack/NOUN", ("hat", "coat"), ("hat", "coat rack")),
        ("Rex/PROPN sat/VERB next/ADV to/ADP it/PRON", None, None),  # nothing after
        ("Rex/PROPN sat/VERB near/ADP Ann/PROPN Lee/PROPN now/ADV", ("Rex", "Lee"), ("Rex", "Ann Lee")),
        ("near/ADP the/DET dog/NOUN", None, None),  # nothing before
        ("cat/NOUN near/ADP dog/NOUN next/ADV to/ADP pig/NOUN", None, ("cat", "dog")),  # four objects in all
        ("cat/NOUN on/ADP the/DET left/NOUN of/ADP dog/NOUN", ("cat", "dog"), ("cat", "dog")),
        ("cat/NOUN under/ADP dog/NOUN", None, None),  # no phrase of the list
    ],
)
def test_objects_around_a_relation(text, released, mended):
    parsed = words(text)
    prompt = " ".join(word.text for word in parsed.words)
    for expected, strict in ((released, True), (mended, False)):
        found = read_complex_pair(prompt, parsed, strict=strict)
        assert (found and (found.first[0], found.second[0])) == expected


def test_type_of_every_complex_prompt_is_the_released_one():
    names = {"s": "spatial", "a": "action", "b": "both"}
    expected = [names[run[0]] for run in RELEASED_KINDS.split() for _ in range(int(run[1:]))]
    prompts = compbench("complex")
    assert [complex_kind(prompt) for prompt in prompts] == expected
    related = [p.lower() for p, kind in zip(prompts, expected, strict=True) if kind != "action"]
    assert len(related) == 88 and all(any(r in p for r in (*COMPLEX_RELATIONS, "below")) for p in related)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("The red hat was on top of the brown coat rack.", "spatial"),
        ("The black phone was resting on the brown charger.", "action"),
        ("The black cat was resting next to the brown dog.", "both"),
        ("The crisp apple lay beside the rough stone.", "action"),
    ],
)
def test_type_of_known_prompts(prompt, kind):
    assert complex_kind(prompt) == kind
