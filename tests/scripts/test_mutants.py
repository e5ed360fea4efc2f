"""The mutation run, on a package of one module: it notices what a test notices, and names what none does."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

SMALL = '''"""A docstring with 1 number."""
STEP = 3


def plain(x: "Literal[5]", y: float = 0.5) -> float:
    if x < 2:
        raise ValueError(f"{x - 1} is below 2")
    return x * y + STEP


def loop(x: int) -> int:
    while x != 0:
        x -= 1
    return x


def unseen(x: int) -> int:
    return x + 7
'''
SMALL_TEST = """import pytest
from small.part import loop, plain


def test_plain():
    assert plain(4) == 5.0
    assert plain(2, 1.0) == 5.0


def test_bound():
    with pytest.raises(ValueError):
        plain(1)


def test_loop():
    assert loop(3) == 0
"""


def load(name: str) -> ModuleType:
    """A module of `scripts/`, which is no package."""
    spec = spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutations = load("mutations")


def changes(source: str) -> list[str]:
    return [mutant.change for mutant in mutations.mutants(source)]


STATE = """import functools

SEEN = {}


def twice(f):
    @functools.wraps(f)
    def inner(x):
        return f(f(x))

    return inner


@twice
def six_more(x):
    return x + 3


def adder(n):
    return lambda x: x + n


four_more = adder(4)


def double(x):
    return 2 * x


class A:
    def value(self):
        return 5


A.own = A
"""
STATE_TEST = """from small import state
from small.state import SEEN, A, double, four_more, six_more

SEEN["here"] = 1
kept = A()


def test_all():
    assert SEEN == state.SEEN == {"here": 1}
    assert double is state.double and A is state.A
    assert kept.value() == 5 and double(3) == 6
    assert six_more(10) == 16 and four_more(10) == 14
"""
ACCEPTED = """[[accepted]]
file = "small/part.py"
function = "unseen"
mutation = "return x + 8"
reason = "no matter"

[[accepted]]
file = "small/part.py"
function = "loop"
mutation = "while x == 0:"
reason = "noticed after all"

[[accepted]]
file = "small/gone.py"
function = ""
mutation = "X = 2"
reason = "the file went"
"""
FILES = {
    "small/__init__.py": "",
    "small/part.py": SMALL,
    "small/state.py": STATE,
    "small/wrong.py": "X = 1",
    "small/unread.py": "X = 1",
    "small/deep/alone.py": "X = 1",
    "checks/test_part.py": SMALL_TEST,
    "checks/test_state.py": STATE_TEST,
    "checks/test_wrong.py": "def test_wrong():\n    assert 0\n",
    "checks/test_unread.py": "import no_such_module\n",
    "checks/test_alone.py": "def test_right():\n    assert 1\n",
    "accepted.toml": ACCEPTED,
    "pytest.ini": "[pytest]\nmarkers =\n    slow: slow\n    gpu: gpu\n",
}


class Outcome(NamedTuple):
    status: int
    out: str
    results: dict[str, Any]


def run(root: Path, *more: str) -> Outcome:
    """One mutation run; its results by file name."""
    words = ["--root", root, "--package", "small", "--tests", "checks", "--preload", "json", "--jobs", "1"]
    words += ["--accepted", root / "accepted.toml", "--json", root / "out.json"]
    done = subprocess.run(
        [sys.executable, SCRIPTS / "mutants.py", *words, *more],
        cwd=root, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (root / "out.json").is_file(), done.stdout + done.stderr
    results = [json.loads(line) for line in (root / "out.json").read_text().splitlines()]
    return Outcome(done.returncode, done.stdout, {Path(result["file"]).name: result for result in results})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package `small`, and tests of some of its modules."""
    folder = tmp_path_factory.mktemp("tree")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def whole(root: Path) -> Outcome:
    return run(root)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a + b", ["a + b -> a - b"]),
        ("a - b", ["a - b -> a + b"]),
        ("a * b", ["a * b -> a / b"]),
        ("a / b", ["a / b -> a * b"]),
        ("a += b", ["a += b -> a -= b"]),
        ("-a", ["-a -> a"]),
        ("a < b", ["a < b -> a >= b"]),
        ("a > b", ["a > b -> a <= b"]),
        ("a <= b", ["a <= b -> a > b"]),
        ("a >= b", ["a >= b -> a < b"]),
        ("a == b", ["a == b -> a != b"]),
        ("a is None", ["a is None -> a is not None"]),
        ("a in b", ["a in b -> a not in b"]),
        ("a < b < c", ["a < b < c -> a < b >= c", "a < b < c -> a >= b < c"]),
        ("a.detach()", ["a.detach() -> a"]),
        ("a.mean()", ["a.mean() -> a.sum()"]),
        ("torch.sum(a)", ["torch.sum(a) -> torch.mean(a)"]),
        ("f(3)", ["3 -> 4"]),
        ("f(a=0.5)", ["0.5 -> 1.5"]),
        ("@f(2)\ndef g(): pass", ["2 -> 3"]),
        ("def g(x=2): pass", ["2 -> 3"]),
        ("def g(*, x=2): pass", ["2 -> 3"]),
        ("f(True, 'a', None)", []),
        ("sum(a)", []),
        ("def g(x: f(2)) -> f(3): pass", []),
        ("x: f(2)", []),
        ("raise E(a - 1)", []),
        ("'''a text with 1 + 1'''", []),
        ("a ** b", []),
    ],
)
def test_kinds_of_change(source: str, expected: list[str]) -> None:
    assert changes(source) == expected


def test_a_mutant_is_the_source_with_one_change() -> None:
    (first, second) = mutations.mutants("y = a + b\nz = a * b\n")
    assert (first.line, first.source) == (1, "y = a - b\nz = a * b")
    assert (second.line, second.source) == (2, "y = a + b\nz = a / b")


def test_a_mutant_knows_its_function_and_its_statement() -> None:
    source = "class A:\n    @f(2)\n    def g(self):\n        if a < b:\n            c = [d + 1,\n                 e]\n"
    named = [(mutant.line, mutant.function, mutant.statement) for mutant in mutations.mutants(source)]
    assert named == [
        (2, "A.g", "@f(3)\ndef g(self):"),
        (4, "A.g", "if a >= b:"),
        (5, "A.g", "c = [d + 2, e]"),
        (5, "A.g", "c = [d - 1, e]"),
    ]


def test_what_tests_notice_and_what_they_do_not(whole: Outcome) -> None:
    result = whole.results["part.py"]
    assert result["file"] == "small/part.py" and result["error"] == ""
    assert [(one["line"], one["change"]) for one in result["survivors"]] == [(18, "7 -> 8"), (18, "x + 7 -> x - 7")]
    assert [one["mutation"] for one in result["survivors"]] == ["return x + 8", "return x - 7"]
    assert result["late"] == 2, "x -= 2 and x += 1 never end"
    assert result["changes"] == len(changes(SMALL)) == 12
    assert whole.status == 1


def test_a_reason_is_printed_and_does_not_raise_the_share(whole: Outcome) -> None:
    assert "small/part.py:18: unseen: 7 -> 8   [no matter]\n      return x + 8\n" in whole.out
    assert "small/part.py:18: unseen: x + 7 -> x - 7   [no reason given]\n      return x - 7\n" in whole.out
    assert "\n5 survive, 4 of them without a reason\nnoticed: 77.27 % of 22 changes in 5 files" in whole.out


def test_a_reason_that_no_survivor_needs_is_stale(whole: Outcome) -> None:
    stale = [line for line in whole.out.splitlines() if line.startswith("stale: ")]
    assert stale == ["stale: small/gone.py: : X = 2", "stale: small/part.py: loop: while x == 0:"]


def test_an_entry_without_a_reason_is_refused(root: Path) -> None:
    (root / "bare.toml").write_text(ACCEPTED.replace('reason = "no matter"\n', ""))
    words = ["--root", root, "--package", "small", "--tests", "checks", "--accepted", root / "bare.toml"]
    done = subprocess.run([sys.executable, SCRIPTS / "mutants.py", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "each [[accepted]] has file, function, mutation, reason" in done.stderr


def test_state_and_identity_survive_the_change(whole: Outcome) -> None:
    assert whole.results["state.py"]["survivors"] == [] and whole.results["state.py"]["error"] == ""


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("wrong.py", "fail without any change"),
        ("unread.py", "no tests were collected"),
        ("alone.py", "checks/deep/test_alone.py does not exist"),
    ],
)
def test_nothing_is_noticed_by_tests_that_do_not_run(whole: Outcome, file: str, said: str) -> None:
    result = whole.results[file]
    assert said in result["error"] and len(result["survivors"]) == result["changes"] == 1


def test_enough_is_enough(root: Path, whole: Outcome) -> None:
    chosen = run(root, "--file", "small/state")
    assert chosen.status == 0 and list(chosen.results) == ["state.py"]
    assert "noticed: 100.00 % of 7 changes" in chosen.out
    assert "stale" not in chosen.out, "files that were not chosen are not judged"


def test_recipes_of_the_changed_source_may_register_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffalign.losses.recipes import registry

    monkeypatch.setattr(registry, "_recipes", dict(registry._recipes))
    load("mutant_runs").forget("@recipe('dpo', 'pair')\ndef f(): ...\nrecipe(\n    \"gspo\", 'policy')(gspo)")
    assert {"dpo", "gspo"}.isdisjoint(registry._recipes) and "simpo" in registry._recipes
