"""Every configuration key as an option; recipes by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from diffalign.commands import _recipes
from diffalign.commands._parser import Parser, normalised
from diffalign.commands._recipes import find_recipe, recipe_names
from diffalign.commands._run_options import add_run_options, config_from
from diffalign.config import RunConfig, aliases, default_of, known_keys
from diffalign.trainers import NFTConfig, PolicyGradientConfig, load_config, make_config, methods


def config_of(*words: str) -> RunConfig:
    parser = Parser()
    add_run_options(parser, "train")
    return config_from(parser.parse_args(normalised(words)))


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder of recipes with one in it, and a working directory without any."""
    folder = tmp_path / "recipes"
    (folder / "shapes-flow").mkdir(parents=True)
    (folder / "shapes-flow" / "quickstart.yaml").write_text("seed: 5\nlora_r: 4\n")
    monkeypatch.setattr(_recipes, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_nothing_given_is_the_default_configuration():
    assert config_of() == PolicyGradientConfig()


def options_and_help(*words: str) -> tuple[set[str], str]:
    parser = Parser(prog="diffalign train")
    add_run_options(parser, "train", words)
    return {option for action in parser._actions for option in action.option_strings}, parser.format_help()


@pytest.mark.parametrize("method", [None, "policy_gradient", "nft", "awm"])
def test_help_shows_the_common_keys_or_those_of_a_method(method):
    options, text = options_and_help("--help", *([method] if method else []))
    cls = methods()[method].Config if method else RunConfig
    common = set() if method is None else set(known_keys(RunConfig))
    assert options - {"-h", "--help", "--config"} == {
        f"--{name}" for name in (*known_keys(cls), *aliases(cls)) if aliases(cls).get(name, name) not in common
    }
    for key in dataclasses.fields(cls):
        if key.name not in common:
            assert " ".join(key.metadata["help"].split()[:3]) in " ".join(text.split())
    assert method or "methods: awm, nft, policy_gradient" in " ".join(text.split())


def test_help_of_an_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match="no method `nt`; did you mean `nft`"):
        options_and_help("--help", "nt")


def test_an_option_of_another_method_is_refused():
    assert config_of("--method", "nft", "--nft_beta", "0.1") == NFTConfig(nft_beta=0.1)
    with pytest.raises(ValueError, match="`nft_beta` is a key of method = nft"):
        config_of("--nft_beta", "0.1")


@pytest.mark.parametrize("key", dataclasses.fields(PolicyGradientConfig), ids=lambda key: key.name)
def test_every_default_can_be_typed(key):
    value = default_of(key)
    if value is None or value in ([], {}):
        words = ["none"] if value is None or value == [] else ["{}"]
    else:
        words = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    assert getattr(config_of(f"--{key.name}", *words), key.name) == value


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--learning_rate", "1e-5"], "learning_rate", 1e-5),
        (["--learning-rate=1e-5"], "learning_rate", 1e-5),
        (["--max_train_steps", "1e3"], "max_train_steps", 1000),
        (["--compare"], "compare", True),
        (["--preflight", "false"], "preflight", False),
        (["--negative_prompt", "a: b, [c"], "negative_prompt", "a: b, [c"),
        (["--run_name", "17"], "run_name", "17"),
        (["--run_name", "null"], "run_name", None),
        (["--reward_funcs", "shapes", "a/b.py:f"], "reward_funcs", ["shapes", "a/b.py:f"]),
        (["--reward_funcs", "[shapes, jpeg]"], "reward_funcs", ["shapes", "jpeg"]),
        (["--reward_funcs", "jpeg"], "reward_funcs", ["jpeg"]),
        (["--report_to", "none"], "report_to", []),
        (["--eval_guidance_scales", "1", "2.5"], "eval_guidance_scales", [1.0, 2.5]),
        (["--eval_guidance_scales", "[1, 2.5]"], "eval_guidance_scales", [1.0, 2.5]),
        (["--eval_guidance_scales", "3"], "eval_guidance_scales", [3.0]),
        (["--reward_kwargs", "{shapes: {variant: strict}}"], "reward_kwargs", {"shapes": {"variant": "strict"}}),
        (["--task_weights", "{colors: 2, counting: 1}"], "task_weights", {"colors": 2.0, "counting": 1.0}),
        (["--rank", "8"], "lora_r", 8),
        (["--model", "shapes-unet"], "pretrained_model_name_or_path", "shapes-unet"),
        (["--resume_from_checkpoint", "latest"], "resume_from_checkpoint", "latest"),
    ],
)
def test_words_become_values(words: list[str], key: str, value: Any):
    assert config_of(*words) == make_config({key: value})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sde_type", "flow-sde"], "did you mean `flow_sde`"),
        (["--compare", "maybe"], "compare must be of type bool"),
        (["--task_weights", "{colors"], "not valid YAML"),
        (["--task_weights", "colors"], "must be a mapping"),
        (["--learning_rate"], "expected one argument"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        config_of(*words)


def test_a_recipe_is_found_by_name_with_options_on_top(recipes):
    assert recipe_names() == ["shapes-flow/quickstart"]
    for name in ("shapes-flow/quickstart", "shapes-flow/quickstart.yaml"):
        assert config_of("--config", name, "--rank", "2") == make_config({"seed": 5, "lora_r": 2})


def test_a_file_wins_over_a_recipe_of_the_same_name(recipes, tmp_path):
    (tmp_path / "shapes-flow").mkdir()
    (tmp_path / "shapes-flow" / "quickstart").write_text("seed: 9\n")
    assert config_of("--config", "shapes-flow/quickstart").seed == 9


def test_an_unknown_recipe_names_the_nearest_and_all(recipes, tmp_path):
    with pytest.raises(ValueError, match="did you mean `shapes-flow/quickstart`"):
        find_recipe("shape-flow/quickstart")
    with pytest.raises(ValueError, match="recipes: shapes-flow/quickstart"):
        find_recipe("nothing like it at all")
    with pytest.raises(ValueError, match="is a folder"):
        find_recipe(str(tmp_path))


def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rat: 1\n")
    with pytest.raises(ValueError, match="did you mean `learning_rate`"):
        config_of("--config", str(path))


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid(name):
    assert load_config(find_recipe(name)) != PolicyGradientConfig()
