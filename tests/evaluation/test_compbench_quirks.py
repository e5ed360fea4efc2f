"""The released and the mended form differ at each listed quirk, and nowhere else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from diffalign.evaluation import compbench_attributes as attributes
from diffalign.evaluation import compbench_prompts as prompts
from diffalign.evaluation.compbench_complex import read_complex_pair
from diffalign.evaluation.compbench_counts import Counted, read_counts
from diffalign.evaluation.compbench_depth import depth_position, framed_depth, spatial_depth
from diffalign.evaluation.compbench_numeracy import numeracy
from diffalign.evaluation.compbench_prompts import DEPTH_RELATIONS, FLAT_RELATIONS, Pair
from diffalign.evaluation.compbench_quirks import QUIRKS
from diffalign.evaluation.compbench_spatial import flat_position, spatial
from diffalign.evaluation.judges import Detection, Judges, ParsedPrompt, Word
from diffalign.evaluation.noun_chunks import parse
from diffalign.evaluation.suites import get

SQUARE = (479, 479)
A, RIGHT, BELOW = (0.0, 0.0, 90.0, 90.0), (200.0, 0.0, 290.0, 90.0), (0.0, 200.0, 90.0, 290.0)
OVERLAP, FAR = (40.0, 10.0, 130.0, 100.0), (380.0, 380.0, 470.0, 470.0)
SLOPE = torch.arange(479.0)[:, None].expand(479, 479).contiguous()
DOG_LEFT_OF_CAR = Pair(("dog",), ("car",), "on the left of")
DOGS = Pair(("dog",), ("dog",), "next to")
DOG_BEHIND_DOG = Pair(("dog",), ("dog",), "behind")


def found(label: str, box, score: float = 0.9) -> Detection:
    return Detection(label, score, box)


def pair(prompt: str, strict: bool) -> Pair:
    return prompts.read_pair(prompt, parse(prompt), FLAT_RELATIONS, strict=strict)


def line_pair(prompt: str, strict: bool) -> Pair:
    """As the suite reads it."""
    suite = get("compbench_spatial" if strict else "compbench_spatial_mended")
    return suite.line(prompt, {}, Judges(parse=parse))["pair"]


def counts(prompt: str, strict: bool):
    return read_counts(prompt, parse(prompt), strict=strict)


def flat(image, query, strict):
    return spatial(image, query, SQUARE, strict=strict)


def deep(image, relation, strict, depth=SLOPE):
    return spatial_depth(image, Pair(("dog",), ("car",), relation), depth, strict=strict)


def text(*kinds: tuple[str, str]) -> ParsedPrompt:
    return ParsedPrompt(tuple(Word(*kind) for kind in kinds), tuple(word for word, _ in kinds))


RED_HAT = text(("red", "ADJ"), ("hat", "NOUN"))
CASES = {
    "cut_prompt": lambda s: line_pair("a dog near a car_2 on a mat", s).second,
    "single_tokens": lambda s: pair("a dog near a traffic light", s).second,
    "place_nouns": lambda s: pair("a dog is on the left of it", s).second,
    "people": lambda s: pair("a girl near a car", s).first,
    "substring_relation": lambda s: pair("a nearby dog on the left of a car", s).relation,
    "on_top_of": lambda s: flat([found("dog", A), found("car", BELOW)], pair("a dog on top of a car", s), s),
    "floor": lambda s: flat([found("dog", A)], DOG_LEFT_OF_CAR, s),
    "near_one_axis": lambda s: flat_position("near", A, (380.0, 0.0, 470.0, 90.0), strict=s),
    "first_detection": lambda s: flat([found("dog", A, 0.6), found("dog", A), found("car", RIGHT)], DOG_LEFT_OF_CAR, s),
    "same_object": lambda s: flat([found("dog", A, 1.0)], DOGS, s),
    "transposed_depth": lambda s: depth_position("behind", (0, 200, 90, 250), (0, 220, 90, 270), SLOPE, strict=s),
    "coarse_depth": lambda s: float(framed_depth(SLOPE / 3, strict=s).sum()),
    "exact_half": lambda s: depth_position("behind", (0, 0, 100, 100), (0, 0, 100, 200), SLOPE + SLOPE.T, strict=s),
    "contained_label": lambda s: deep([found("dog", A), found("carpet", OVERLAP)], "behind", s),
    "last_match": lambda s: deep([found("dog", A), found("dog", FAR, 0.8), found("car", OVERLAP, 0.7)], "behind", s),
    "same_object_depth": lambda s: spatial_depth([found("dog", A)], DOG_BEHIND_DOG, SLOPE, strict=s),
    "contained_duplicate": lambda s: numeracy(
        [found("dog", A), found("dog", (10.0, 10.0, 20.0, 20.0))], [Counted("dog", 2)], SQUARE, strict=s
    ),
    "renamed_labels": lambda s: numeracy([found("carpet", A)], [Counted("car", 1)], SQUARE, strict=s),
    "fixed_vocabulary": lambda s: counts("two zebras and one dog", s),
    "small_numbers": lambda s: counts("nine dogs and one cat", s),
    "adjective_between": lambda s: counts("two red dogs and one cat", s),
    "shifted_numbers": lambda s: counts("a dogs and two cats", s),
    "television": lambda s: counts("one television", s),
    "eight_questions": lambda s: attributes.questions(text(*[(c, "NOUN") for c in "bcdefghjk"]), strict=s),
    "rounding": lambda s: attributes.attribute([1 / 3], strict=s),
    "place_questions": lambda s: attributes.questions(text(("dog", "NOUN"), ("the bottom", "NOUN")), strict=s),
    "two_objects": lambda s: read_complex_pair("", parse("a cat near a dog next to a pig"), strict=s),
    "adjectives_removed": lambda s: attributes.similarity_text("red hat", RED_HAT, strict=s),
}  # fmt: skip


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.name)
def test_the_forms_differ_at_every_listed_quirk(quirk):
    assert CASES[quirk.name](True) != CASES[quirk.name](False)


def test_every_quirk_has_a_name_of_its_own_and_a_case():
    assert [quirk.name for quirk in QUIRKS] == list(CASES)


def test_the_documentation_lists_every_quirk_and_no_other():
    page = (Path(__file__).resolve().parents[2] / "docs/suites/compbench.md").read_text()
    table = page.split("## Quirks")[1].split("Kept in both forms")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{q.name}` | {q.part} | {q.released} | {q.mended} |" for q in QUIRKS]


def scene(rng: random.Random) -> list[Detection]:
    """One object of each label at most, best first, none inside another of its label."""
    image = []
    for label in rng.sample(["dog", "car", "cup"], rng.randint(0, 3)):
        x, y = rng.uniform(0, 380), rng.uniform(0, 380)
        image.append(found(label, (x, y, x + rng.uniform(20, 90), y + rng.uniform(20, 90)), rng.uniform(0.55, 1)))
    return sorted(image, key=lambda d: -d.score)


def test_2d_scores_are_equal_away_from_the_quirks():
    rng, compared = random.Random(0), 0
    for _ in range(2000):
        image, relation = scene(rng), rng.choice(FLAT_RELATIONS[1:7])
        strict, mended = (flat(image, Pair(("dog",), ("car",), relation), s) for s in (True, False))
        if relation not in ("next to", "near", "on side of") and mended >= 0.5:
            assert strict == mended
            compared += 1
        assert strict in (0, mended) or relation in ("next to", "near")
    assert compared > 100


def test_3d_scores_are_equal_away_from_the_quirks():
    rng, generator, seen = random.Random(0), torch.Generator().manual_seed(0), set()
    half = torch.rand(32, 32, generator=generator)
    depth = half + half.T  # rows and columns may be exchanged
    for _ in range(300):
        image = [found(d.label, tuple(v * 32 / 479 for v in d.box), d.score) for d in scene(rng)]
        relation = rng.choice(DEPTH_RELATIONS)
        strict, mended = (deep(image, relation, s, depth) for s in (True, False))
        assert strict == pytest.approx(mended, abs=1e-9)
        seen.add(strict > 0.5)
    assert seen == {True, False}


def test_counts_are_equal_away_from_the_quirks():
    rng = random.Random(0)
    wanted = [Counted("dog", 1), Counted("cup", 2)]
    for _ in range(500):
        image = scene(rng)
        assert numeracy(image, wanted, SQUARE) == numeracy(image, wanted, SQUARE, strict=False)
        probabilities = [round(rng.random(), 2) for _ in range(2)]
        assert attributes.attribute(probabilities) == pytest.approx(attributes.attribute(probabilities, strict=False))


def test_fixed_prompt_forms_are_read_alike():
    for relation in FLAT_RELATIONS[1:7]:
        prompt = f"a dog {relation} a car"
        assert pair(prompt, True) == pair(prompt, False)
    for prompt in ("two dogs", "one cat, three cups and a bird", "six people"):
        assert counts(prompt, True) == counts(prompt, False)
    parsed = parse("a red cup and a blue bowl")
    assert attributes.questions(parsed) == attributes.questions(parsed, strict=False)
