"""Command lines in the documentation are ones that the parsers take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from diffalign.commands import _load
from diffalign.commands._parser import Parser, normalised
from diffalign.commands._recipes import find_recipe
from diffalign.commands._run_options import config_from

ROOT = Path(__file__).resolve().parents[2]


def command_lines() -> list[str]:
    """Lines of code blocks that call `diffalign VERB` with something behind it."""
    found = []
    for name in ("commands", "quickstart"):
        text = (ROOT / "docs" / f"{name}.md").read_text()
        for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S):
            found += re.findall(r"(?:diffalign|scripts/train\.py) .+", block)
    return sorted({line.split("#")[0].strip() for line in found if "--help" not in line})


def test_the_documentation_has_every_verb():
    verbs = {line.split()[1] for line in command_lines() if line.startswith("diffalign")}
    assert {"train", "doctor", "generate", "evaluate", "rewards"} <= verbs


@pytest.mark.parametrize("line", command_lines())
def test_a_documented_command_line_is_understood(line):
    program, *words = shlex.split(line)
    verb, words = (words[0], words[1:]) if program == "diffalign" else ("train", words)
    parser, module = Parser(prog=verb), _load(verb)
    module.add_arguments(parser)
    args = parser.parse_args(normalised(words))
    config = getattr(args, "config", None)
    if config is not None and not config.startswith("runs/"):
        assert find_recipe(config).is_file()
        assert config_from(args)
