"""Command lines in the documentation are ones that the parsers take."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from diffalign.commands import _load
from diffalign.commands._parser import Parser, normalised
from diffalign.commands._recipes import find_recipe
from diffalign.commands._run_options import config_from

ROOT = Path(__file__).resolve().parents[2]


def command_lines() -> list[str]:
    """Lines of code blocks that call `diffalign VERB` with something behind it."""
    found = []
    for name in ("commands", "quickstart"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S):
            found += re.findall(r"(?:diffalign|scripts/train\.py) .+", block)
    return sorted({line.split("#")[0].strip() for line in found if "--help" not in line})


def test_the_documentation_has_every_verb():
    verbs = {line.split()[1] for line in command_lines() if line.startswith("diffalign")}
    assert {"train", "doctor", "generate", "evaluate", "report", "rewards"} <= verbs


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


@pytest.fixture
def desk(tmp_path, monkeypatch, lora_run):
    """A working directory with what the examples of docs/commands.md name."""
    shutil.copytree(lora_run, tmp_path / "runs/quickstart")
    shutil.copytree(lora_run, tmp_path / "runs/slower")
    (tmp_path / "my_rewards.py").write_text(
        "def redness(images, prompts, metadata, strength=1):\n    return strength * images[:, 0].mean((1, 2))\n"
    )
    (tmp_path / "photos").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"photos/{name}.png")
        (tmp_path / f"photos/{name}.txt").write_text(f"something {colour}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_page_run(diffalign, desk):
    """In the order of the page; training and the whole held-out set take too long, their options are checked above."""
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    lines = re.findall(r"^diffalign (.+)", text, re.M)
    long = ("train", "doctor", "evaluate --model shapes-flow", "--help")
    run = [line.split(" #")[0] for line in lines if not any(word in line for word in long)]
    assert len(run) >= 12
    for line in run:
        outcome = diffalign(*shlex.split(line))
        assert outcome.status == 0, f"{line}: {outcome.err}"
    assert {"generated", "halfway", "samples", "aligned.json", "both.html", "photos.csv"} <= {
        p.name for p in desk.iterdir()
    }
