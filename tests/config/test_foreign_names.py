"""Other trainers' names are answered with ours."""

from __future__ import annotations

import pytest

from diffalign.commands import _load
from diffalign.commands._parser import Parser, refuse_unknown
from diffalign.config import known_keys, make_config, suggestion
from diffalign.config.foreign_names import FOREIGN_NAMES
from diffalign.trainers import PolicyGradientConfig


@pytest.mark.parametrize(
    ("given", "ours"), [("lr", "learning_rate"), ("epochs", "max_train_steps"), ("network_dim", "lora_r")]
)
def test_a_foreign_name_is_answered_with_ours(given: str, ours: str) -> None:
    keys = known_keys(PolicyGradientConfig)
    assert f"`{ours}`" in suggestion(given, keys)
    assert f"`--{ours}`" in suggestion(f"--{given}", [f"--{key}" for key in keys])


def test_a_key_and_an_option_are_answered_alike() -> None:
    with pytest.raises(ValueError, match="did you mean `learning_rate`"):
        make_config({"lr": 1e-4})
    with pytest.raises(ValueError, match="unknown option --lr; did you mean `--learning_rate`"):
        parser = Parser(prog="diffalign train")
        _load("train").add_arguments(parser)
        refuse_unknown(parser, ["--lr", "1e-4"])


def test_a_name_that_is_unknown_here_falls_back_to_the_spelling() -> None:
    assert suggestion("steps", ["step", "rate"]) == "; did you mean `step`?"
    assert "`scale`" in suggestion("scales", ["scale", "rate"])


def test_every_answer_is_an_option_or_a_key_somewhere() -> None:
    options = set(known_keys(PolicyGradientConfig))
    for verb in ("generate", "evaluate"):
        parser = Parser()
        _load(verb).add_arguments(parser)
        options |= {option.removeprefix("--") for action in parser._actions for option in action.option_strings}
    assert not {name: ours for name, ours in FOREIGN_NAMES.items() if not set(ours.split()) <= options}


def test_no_name_of_our_own_is_in_the_table() -> None:
    """`lora_path` and `output_dir` are keys of a run, and foreign to the commands that draw images."""
    assert set(FOREIGN_NAMES) & set(known_keys(PolicyGradientConfig)) <= {"lora_path", "output_dir"}
