"""The door of the command line: discovery, help, and what a mistake looks like."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import FunctionType

import pytest

from diffalign import commands
from diffalign.commands import main, verbs
from diffalign.commands._parser import Parser

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "peft")


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `diffalign rewards list` raise from inside the package."""

    def run(args: object) -> int:
        raise error

    inside = FunctionType(run.__code__, {"__name__": "diffalign.somewhere"}, closure=run.__closure__)
    monkeypatch.setattr(commands._load("rewards"), "run", inside)


def test_a_verb_is_a_module_without_underscore():
    modules = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}
    assert set(verbs()) == {name.replace("_", "-") for name in modules if not name.startswith("_")}
    assert {"train", "generate", "evaluate", "doctor", "rewards"} <= set(verbs())


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_the_three_parts_and_explains_every_option(verb):
    module = commands._load(verb)
    assert module.HELP and "\n" not in module.HELP
    parser = Parser()
    module.add_arguments(parser)
    assert callable(module.run)
    silent = [action.dest for action in parser._actions if not action.help and action.dest != "action"]
    assert not silent, f"no help text: {silent}"


def test_help_names_every_verb(diffalign):
    outcome = diffalign("--help")
    assert outcome.status == 0
    for verb in verbs():
        assert f"  {verb} " in outcome.out


@pytest.mark.parametrize("verb", verbs())
def test_help_of_a_verb(diffalign, verb):
    outcome = diffalign(verb, "--help")
    assert outcome.status == 0 and f"usage: diffalign {verb}" in outcome.out and not outcome.err


def test_dashes_and_underscores_of_a_verb_are_alike(diffalign):
    outcomes = [diffalign(verb, "--reward", "jpeg", "--host", "0.0.0.0") for verb in ("serve-rewards", "serve_rewards")]
    assert outcomes[0] == outcomes[1] and outcomes[0].err.startswith("diffalign serve-rewards: ")


def test_without_a_verb_the_help_is_shown(diffalign):
    outcome = diffalign()
    assert outcome.status == 2 and "commands:" in outcome.out


def test_version(diffalign):
    from diffalign import __version__

    assert diffalign("--version") == (0, f"diffalign {__version__}\n", "")


@pytest.mark.parametrize(("given", "meant"), [("trian", "train"), ("eval", "evaluate"), ("reward", "rewards")])
def test_an_unknown_verb_names_the_nearest(diffalign, given, meant):
    outcome = diffalign(given, "--config", "x")
    assert outcome.status == 2 and not outcome.out
    assert outcome.err.startswith(f"diffalign: unknown command `{given}`; did you mean `{meant}`")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "No such file or directory: a.txt"),
        (OSError("disk full"), "disk full"),
        (ModuleNotFoundError("install diffalign[wandb]"), "install diffalign[wandb]"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(diffalign, monkeypatch, error, line):
    fail_with(monkeypatch, error)
    outcome = diffalign("rewards", "list")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == f"diffalign rewards: {line}\n"


def test_a_list_of_findings_keeps_its_lines(diffalign, monkeypatch):
    fail_with(monkeypatch, ValueError("this run would not learn:\n- one\n  goes on\n- two"))
    assert diffalign("rewards", "list").err == ("diffalign rewards: this run would not learn:\n- one goes on\n- two\n")


def test_notes_of_an_error_are_told(diffalign, monkeypatch):
    error = ValueError("bad shape")
    error.add_note("raised while scoring with reward 'mine'")
    fail_with(monkeypatch, error)
    assert "bad shape (raised while scoring with reward 'mine')" in diffalign("rewards", "list").err


def test_an_error_from_elsewhere_says_how_to_see_more(diffalign, monkeypatch):
    monkeypatch.setattr(commands._load("rewards"), "run", lambda args: int("not a number"))
    outcome = diffalign("rewards", "list")
    assert outcome.status == 2 and "DIFFALIGN_TRACEBACK=1" in outcome.err


def test_the_traceback_is_shown_on_request(monkeypatch):
    fail_with(monkeypatch, ValueError("inside"))
    monkeypatch.setenv("DIFFALIGN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="inside"):
        main(["rewards", "list"])


def test_an_internal_error_is_not_hidden(monkeypatch):
    fail_with(monkeypatch, RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        main(["rewards", "list"])


def test_ctrl_c_is_status_130(diffalign, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert diffalign("rewards", "list") == (130, "", "diffalign rewards: interrupted\n")


def test_dashes_and_underscores_are_alike(diffalign):
    one, other = (diffalign("generate", "a", f"--{key}=x") for key in ("num-inference-steps", "num_inference_steps"))
    assert one == other and "--num_inference_steps: 'x' is not a whole number above 0" in one.err


def test_unknown_options_and_stray_words_are_refused(diffalign):
    outcome = diffalign("generate", "a cat", "--guidance", "3")
    assert outcome.status == 2 and "unknown option --guidance; did you mean `--guidance_scale`" in outcome.err
    outcome = diffalign("train", "shapes-flow/quickstart")
    assert outcome.status == 2 and "unexpected argument 'shapes-flow/quickstart'" in outcome.err


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_plain_help_loads_no_heavy_library():
    code = (
        "import sys; from diffalign.commands import main, verbs\n"
        "[main([verb, '--help']) for verb in verbs()]; main(['--help'])\n"
        f"print('loaded:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert run_python("-c", code).stdout.strip().endswith("loaded: []")


def test_python_m_diffalign_and_the_script_are_the_same_door(tmp_path):
    module = run_python("-m", "diffalign", "train", "--help")
    script = run_python("scripts/train.py", "--help")
    assert module.returncode == script.returncode == 0
    assert module.stdout == script.stdout and "--learning_rate" in module.stdout
    assert run_python("-m", "diffalign", "no-such-verb").returncode == 2


def test_the_script_is_short():
    assert len((ROOT / "scripts" / "train.py").read_text().splitlines()) <= 30


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from diffalign.commands import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_warning_is_one_line_without_code(diffalign, monkeypatch):
    usual = warnings.formatwarning

    def run(args):
        print(warnings.formatwarning(UserWarning("the weights are fresh"), UserWarning, "file.py", 3, "code()"), end="")
        return 0

    monkeypatch.setattr(commands._load("rewards"), "run", run)
    assert diffalign("rewards", "list").out == "warning: the weights are fresh\n"
    assert warnings.formatwarning is usual
