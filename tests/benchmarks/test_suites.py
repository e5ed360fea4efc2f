from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.suites.before_after import main
from tests.commands.conftest import tiny_lora as tiny_lora
from tests.commands.conftest import tiny_model as tiny_model


def test_before_and_after_are_one_page_and_a_finished_half_is_not_drawn_again(
    tiny_model: Path, tiny_lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["geneval", "--prompts", "shapes:heldout", "--model", str(tiny_model), "--lora", str(tiny_lora)]
    words += ["--output", str(tmp_path), "--", "--detector", "shapes", "--max_prompts", "3", "--images_per_prompt", "1"]
    words += ["--num_inference_steps", "1", "--guidance_scales", "1"]
    assert main(words) == 0
    before, after = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("before", "after"))
    assert before["generation"]["lora"] is None and after["generation"]["lora_hash"].startswith("sha256:")
    assert "after over before" in (tmp_path / "after/comparison.html").read_text()
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0000.png")}
    assert len(drawn) == 6 and main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0000.png")} == drawn
    capsys.readouterr()
    assert main([*words[:2], "nowhere.jsonl", *words[3:]]) == 2 and "nowhere.jsonl" in capsys.readouterr().err
