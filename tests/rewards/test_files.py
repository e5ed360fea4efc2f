"""Rewards in a user's own file: the file, the modules beside it, and what is said when they fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.files import load_function, local_modules
from diffalign.rewards.identity import identity


def call(reward: rewards.Reward, images: Tensor) -> Tensor:
    return reward(images, [""] * len(images), [{}] * len(images))


USER_FILE = """
from __future__ import annotations
from dataclasses import dataclass

def green(images, prompts, metadata, power=1):
    return images[:, 1].mean((1, 2)) ** power

@dataclass
class Blue:
    weight: float = 1.0
    name = "blue"
    scope = "pointwise"
    differentiable = True
    range = None
    needs = frozenset()

    def __call__(self, images, prompts, metadata):
        return self.weight * images[:, 2].mean((1, 2))
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(USER_FILE)
    return path


def test_a_function_in_a_file(user_file: Path, images: Tensor) -> None:
    reward = rewards.get(f"{user_file}:green", power=2)
    assert reward.name == "green"
    assert torch.allclose(call(reward, images), images[:, 1].mean((1, 2)).square())


def test_a_class_in_a_file(user_file: Path, images: Tensor) -> None:
    reward = rewards.get(f"{user_file}:Blue", weight=0.5)
    assert reward.name == "blue" and reward.differentiable
    assert torch.allclose(call(reward, images), 0.5 * images[:, 2].mean((1, 2)))


def test_a_relative_path_starts_at_the_working_directory(user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(user_file.parent)
    assert rewards.get("my_rewards.py:green").name == "green"


def test_two_files_of_one_name_do_not_meet(user_file: Path, tmp_path: Path, images: Tensor) -> None:
    other = tmp_path / "elsewhere" / user_file.name
    other.parent.mkdir()
    other.write_text("def green(images, prompts, metadata):\n    return images.new_zeros(len(images))\n")
    first, second = rewards.get(f"{user_file}:green"), rewards.get(f"{other}:green")
    assert call(second, images).eq(0).all() and call(first, images).gt(0).all()
    assert load_function(f"{user_file}:green").__module__ != load_function(f"{other}:green").__module__


def test_a_missing_file_and_a_missing_function_are_told(user_file: Path) -> None:
    with pytest.raises(ValueError, match="there is no file .*absent.py"):
        rewards.get("absent.py:green")
    with pytest.raises(ValueError, match="has no 'gren'; did you mean `green`"):
        rewards.get(f"{user_file}:gren")


def test_an_error_inside_the_file_is_passed_on_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import torch\nimport a_library_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there") as caught:
        rewards.get(f"{path}:f")
    assert caught.value.__notes__ == [f"ModuleNotFoundError in reward file {path} ({path}:2, in <module>)"]
    path.write_text("def f(:\n")
    with pytest.raises(ValueError, match=r"bad.py:1: "):
        rewards.get(f"{path}:f")


def test_an_error_while_scoring_names_the_line_in_the_users_file(tmp_path: Path, images: Tensor) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(images, prompts, metadata):\n    # comment\n    raise ValueError('no cat')\n")
    reward = rewards.get(f"{path}:f")
    with pytest.raises(ValueError, match="no cat") as caught:
        rewards.score({"mine": reward}, images, ["a"] * 4, [{}] * 4)
    assert caught.value.__notes__ == [f"ValueError in reward 'mine' ({path}:3, in f)"]


MAIN = """
from helper_a import level
import package_b.inner

def f(images, prompts, metadata):
    from helper_late import shift
    return level(images) + package_b.inner.ZERO + shift()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reward file with a module, a package and a late import beside it; the working directory is elsewhere."""
    folder = tmp_path / "project"
    (folder / "package_b").mkdir(parents=True)
    (folder / "main_reward.py").write_text(MAIN)
    (folder / "helper_a.py").write_text("from helper_c import ONE\n\ndef level(x): return ONE * x.mean((1, 2, 3))\n")
    (folder / "helper_c.py").write_text("ONE = 1.0\n")
    (folder / "helper_late.py").write_text("def shift(): return 0.0\n")
    (folder / "package_b" / "__init__.py").write_text("from .sibling import NAME\n")
    (folder / "package_b" / "inner.py").write_text("from . import sibling\nZERO = 0.0\n")
    (folder / "package_b" / "sibling.py").write_text("NAME = 'sibling'\n")
    (folder / "unrelated.py").write_text("raise SystemExit('not imported by the reward')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_beside_the_file_are_importable_wherever_the_command_is_started(project: Path, images: Tensor) -> None:
    reward = rewards.get(f"{project}/main_reward.py:f")
    assert torch.equal(call(reward, images), images.mean((1, 2, 3)))
    again = rewards.get("project/main_reward.py:f")
    assert torch.equal(call(again, images), images.mean((1, 2, 3)))
    assert sys.path.count(str(project)) == 1


def test_a_module_beside_the_file_is_loaded_afresh_with_it(project: Path, images: Tensor) -> None:
    spec = f"{project}/main_reward.py:f"
    rewards.get(spec)
    (project / "helper_c.py").write_text("ONE = 20.0\n")
    scores = call(rewards.get(spec), images)
    assert torch.allclose(scores, 20 * images.mean((1, 2, 3)))


def test_all_that_is_imported_from_the_folder_is_found(project: Path) -> None:
    found = local_modules(project / "main_reward.py")
    expected = ["helper_a", "helper_c", "helper_late", "package_b", "package_b.inner", "package_b.sibling"]
    assert list(found) == expected and all(file.is_file() for file in found.values())


@pytest.mark.parametrize("edited", ["main_reward.py", "helper_c.py", "helper_late.py", "package_b/sibling.py"])
def test_the_identity_changes_with_each_file_that_is_imported(project: Path, edited: str) -> None:
    spec = f"{project}/main_reward.py:f"
    reward = rewards.get(spec)
    before = identity(spec, {}, reward)
    (project / "unrelated.py").write_text("# edited\n")
    assert identity(spec, {}, reward) == before
    with (project / edited).open("a") as file:
        file.write("# edited\n")
    assert identity(spec, {}, reward) != before


def test_a_name_that_is_taken_is_refused(project: Path) -> None:
    (project / "main_reward.py").write_text("import json, helper_a\n\ndef f(i, p, m): return [0.0]\n")
    (project / "json.py").write_text("")
    with pytest.raises(ValueError, match=r"imports json, .*project/json.py beside it.*rename"):
        rewards.get(f"{project}/main_reward.py:f")
