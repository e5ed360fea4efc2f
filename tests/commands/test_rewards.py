"""`diffalign rewards`: the list, and what a check finds."""

from __future__ import annotations

import pytest

from diffalign.rewards import registry


def names_in(listing):
    """First words of the rows of a table."""
    return {line.split()[0] for line in listing.splitlines()[2:] if not line.startswith(("`", "from other"))}


@pytest.mark.parametrize("width", [100, 70])
def test_the_list_has_every_registered_reward_and_fits_the_terminal(diffalign, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    outcome = diffalign("rewards", "list")
    assert outcome.status == 0
    assert names_in(outcome.out) == set(registry.names()) and "shapes" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= width


THEIRS = """
from diffalign.rewards import Reward
class Theirs(Reward):
    '''Likes what they like.

    More on it.
    '''
    needs, range, licence = frozenset({'prompt'}), (0.0, 5.0), 'CC-BY-4.0'
    weights = (('owner/model', 'a.safetensors'), ('owner/model', 'b.safetensors'))
    environment = ('THEIR_KEY',)
    def __init__(self, strength=2): raise RuntimeError('made')
make = Theirs
"""


def test_the_list_says_what_a_reward_needs_without_making_it(diffalign, install):
    install("listed", "theirs", THEIRS)
    install("broken", "breaks", "import a_library_that_is_not_there\n")
    outcome = diffalign("rewards", "list")
    lines = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert outcome.status == 0 and "does not import" in lines["breaks"]
    assert lines["theirs"].split()[1:] == ["pointwise", "no", "0", "to", "5", "absent", "prompt"]
    assert "from other distributions: breaks (broken), theirs (listed)" in outcome.out
    assert "metadata" in lines["shapes"] and "0 to 1" in lines["shapes"]


def test_one_reward_is_shown_in_full_without_making_it(diffalign, install):
    install("listed", "theirs", THEIRS)
    outcome = diffalign("rewards", "show", "theirs")
    assert outcome.status == 0, outcome.err
    parts = [
        "listed",
        "Likes what they like.",
        "strength=2",
        "owner/model b.safetensors (absent)",
        "CC-BY-4.0",
        "THEIR_KEY",
    ]
    assert all(part in outcome.out for part in parts) and "More on it" not in outcome.out
    install("broken", "breaks", "import a_library_that_is_not_there\n")
    outcome = diffalign("rewards", "show", "breaks")
    assert outcome.status == 1 and "does not import: No module named" in outcome.out


@pytest.mark.parametrize("name", registry.names())
def test_every_registered_reward_can_be_shown(diffalign, name):
    outcome = diffalign("rewards", "show", name)
    assert outcome.status == 0 and outcome.out.startswith(f"{name}: ")


def test_two_distributions_with_one_name_are_both_named(diffalign, install):
    source = "from diffalign.rewards import FunctionReward\ndef make(): return FunctionReward(lambda i, p, m: [0.0])\n"
    install("one", "shapes", source)
    outcome = diffalign("rewards", "list")
    assert outcome.status == 1 and "shapes is declared by diffalign (" in outcome.out and " and one (" in outcome.out
    outcome = diffalign("rewards", "check", "shapes")
    assert outcome.status == 2 and "declared by diffalign (" in outcome.err and "one (" in outcome.err


@pytest.mark.parametrize("words", [["shapes"], ["shapes", "--kwargs", "{variant: strict}"], ["jpeg"]])
def test_a_built_in_reward_passes(diffalign, words):
    outcome = diffalign("rewards", "check", *words)
    assert outcome.status == 0, outcome.out + outcome.err
    assert outcome.out.endswith("ok\n") and "its self-test passes" in outcome.out


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        ("return images.mean((1, 2, 3))", "ok"),
        ("return [0.5] * len(prompts)", "does not look"),
        ("return [None] * len(prompts)", "could not score"),
        ("return images.mean((1, 2, 3)) - images.mean()", "neighbours"),
        ("raise ValueError('no cat')", "FAILED: no cat (ValueError in reward 'score' ("),
        ("return metadata[0]['no such key']", "mine.py:2, in score))"),
    ],
)
def test_a_function_in_a_file_is_checked(diffalign, tmp_path, body, finding):
    path = tmp_path / "mine.py"
    path.write_text(f"def score(images, prompts, metadata):\n    {body}\n")
    outcome = diffalign("rewards", "check", f"{path}:score")
    assert finding in outcome.out, outcome.err
    assert outcome.status == (0 if finding == "ok" else 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "shape"], "did you mean `shapes`"),
        (["check", "shapes", "--kwargs", "strict"], "must be a mapping"),
        (["check", "shapes", "--kwargs", "{variant: best}"], "variant 'best' is unknown"),
        (["check"], "required: reward"),
        (["chek", "shapes"], "invalid choice: 'chek'"),
        (["show", "pickscor"], "did you mean `pickscore`"),
        ([], "required: list|show|check|score"),
    ],
)
def test_mistakes_are_one_line(diffalign, words, message):
    outcome = diffalign("rewards", *words)
    assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1
