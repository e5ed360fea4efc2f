"""Every preference and policy objective trains a tiny language model: what it should raise rises.

The margin of each is half of the smallest rise over three seeds, as the table of docs/language_models.md has it.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from diffalign.losses import recipes

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "language_model"
PAGE = (ROOT / "docs" / "language_models.md").read_text(encoding="utf-8")
RISE = {name: float(rise) for name, rise in re.findall(r"^\| `([\w.-]+)` \|.*\| ([+-]\d\.\d+) \|$", PAGE, re.MULTILINE)}

# Files of functions -> those of them that are parts of objectives, not objectives.
PARTS = {
    "preference": {"pair_margin"},
    "label_noise": set(),
    "ratio_links": set(),
    "listwise": {"group_softmax", "best_first", "gap_temperature"},
    "rank_pairs": {"ordered_pairs", "rank", "dcg_weight"},
    "unpaired": {"kto_shift", "class_mean_shift", "density_ratio"},
    "regression": set(),
    "policy": set(),
    "policy_soft": {"target_ratio"},
    "policy_sequence": set(),
    "policy_divergence": set(),
    "policy_covariance": set(),
    "policy_off": {"halfway_gap", "focal_factor"},
    "policy_pairs": {"reward_gap"},
    "discriminative": {"positive_weights"},
}
RECIPES = {
    "preference", "preference_steps", "preference_square", "preference_links", "preference_tokens", "madpo", "gpm",
    "listwise", "unpaired", "implicit_reward", "policy", "policy_off", "oreal", "copo", "nash_md", "tspo", "bundles",
    "ppo_max", "sft",
}  # fmt: skip


@pytest.fixture(scope="module")
def cli() -> Iterator[ModuleType]:
    """The script; what it imports from its own folder is forgotten afterwards."""
    pytest.importorskip("transformers")
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
        yield import_module("train")
    for name in {path.stem for path in SCRIPTS.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", RISE)
def test_it_learns(cli: ModuleType, name: str) -> None:
    result = cli.train(name, steps=cli.STEPS, seed=0)
    assert abs(result.before - 0.5) < 0.02
    assert result.after - result.before >= RISE[name] / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", RISE)
def test_with_the_other_sign_it_does_not(cli: ModuleType, name: str) -> None:
    preference = name in cli.PREFERENCE
    objective = (cli.PREFERENCE if preference else cli.POLICY)[name]
    loop = import_module("loop")
    train = loop.train_preference if preference else loop.train_policy
    result = train(lambda batch: -objective(batch), steps=cli.STEPS, seed=0)
    assert not result.after - result.before >= RISE[name] / 2


def test_the_table_has_every_objective_and_every_margin_says_something(cli: ModuleType) -> None:
    assert list(RISE) == cli.names()
    assert min(RISE.values()) > 0.1


@pytest.mark.parametrize("file", PARTS)
def test_no_function_is_forgotten(cli: ModuleType, file: str) -> None:
    module = import_module(f"diffalign.losses.{file}")
    public = {
        name
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {f"{file}.{name}" for name in public - PARTS[file]} <= set(cli.names())
    assert PARTS[file] <= public


def test_no_recipe_is_forgotten(cli: ModuleType) -> None:
    package = recipes.__name__
    ids = {id for id in recipes.names() if recipes.get(id).function.__module__ in {f"{package}.{m}" for m in RECIPES}}
    assert ids - set(cli.names()) == set(cli.NOT_HERE)
    assert {name for name in cli.names() if "." not in name} <= set(recipes.names())


def test_one_seed_is_one_result(cli: ModuleType) -> None:
    for name in ("rso", "policy.clip"):
        first, second, other = (cli.train(name, steps=4, seed=seed) for seed in (0, 0, 1))
        assert first == second and first.losses != other.losses
        assert len(first.losses) == 4


def test_the_command_line(cli: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--objective", "dpo", "p3o", "--steps", "1", "--seeds", "0", "2"])
    head, line, dpo, p3o = capsys.readouterr().out.splitlines()
    assert head == "| objective | figure | seed 0 | seed 2 | smallest rise |"
    assert dpo.startswith("| `dpo` | accuracy | 0.500 → 0.") and p3o.startswith("| `p3o` | reward | 0.5")
    assert line.count("---") == dpo.count("|") - 1
    cli.main(["--list"])
    listed = capsys.readouterr().out
    assert all(f"\n  {name}\n" in listed for name in cli.names()) and "riskpo: " in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--objective", "simp"], "no objective is named 'simp'; did you mean `simpo`"),
        (["--objective", "dpo", "riskpo"], "'riskpo' is not among the objectives here: shapes advantages"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
    ],
)
def test_mistakes_are_told(
    cli: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert said in capsys.readouterr().err
    if "--objective" in arguments:
        with pytest.raises(ValueError, match=re.escape(said)):
            cli.train(arguments[-1], steps=1, seed=0)


def test_the_python_of_the_page_runs() -> None:
    pytest.importorskip("transformers")
    own_loop, *_ = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    exec(compile(own_loop, "docs/language_models.md", "exec"), scope)  # noqa: S102
    assert scope["losses"][-1] < scope["losses"][0]  # type: ignore[index]
