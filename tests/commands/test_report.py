"""`diffalign report`: pages of finished and killed runs."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def killed(lora_run, tmp_path):
    """What a run leaves that was killed between two steps."""
    folder = shutil.copytree(lora_run, tmp_path / "killed")
    for name in ("report.html", "README.md", "pytorch_lora_weights.safetensors"):
        (folder / name).unlink()
    log = folder / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    return folder


def test_a_killed_run_gets_its_page(diffalign, killed):
    outcome = diffalign("report", killed)
    assert outcome == (0, f"{killed / 'report.html'}\n", "")
    text = (killed / "report.html").read_text(encoding="utf-8")
    assert "Reward: jpeg_compressibility" in text and "1 broken line" in text


def test_the_page_may_go_elsewhere(diffalign, killed, tmp_path):
    output = tmp_path / "deep" / "page.html"
    assert diffalign("report", killed, "--output", output).out == f"{output}\n"
    assert output.is_file() and not (killed / "report.html").exists()


def test_several_runs_are_put_side_by_side(diffalign, killed, lora_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = diffalign("report", killed, lora_run)
    assert outcome.status == 0 and outcome.out == "side_by_side.html\n"
    assert "killed · lora" in (tmp_path / "side_by_side.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}"], "is not the folder of a run: it has none of metrics.jsonl"),
        (["{run}", "{tmp}"], "is not the folder of a run"),
        (["{tmp}/nowhere"], "is not the folder of a run"),
        (["{run}", "--output", "{tmp}"], "is a folder"),
        ([], "required: RUN"),
    ],
)
def test_mistakes_are_one_line(diffalign, lora_run, tmp_path, words, message):
    outcome = diffalign("report", *(word.format(run=lora_run, tmp=tmp_path) for word in words))
    assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1
