"""Reading a run folder in any state."""

from __future__ import annotations

import json

import pytest

from diffalign.report.run_folder import read_run


def test_a_finished_run_misses_nothing(run_dir):
    run = read_run(run_dir)
    assert run.missing == []
    assert run.name == "flow-grpo-shapes"
    assert run.config["lora_r"] == 32
    assert run.comparison["overall"]["gain"] > 0


def test_an_empty_folder_names_everything(tmp_path):
    run = read_run(tmp_path)
    assert run.name == tmp_path.name
    for part in ("config.yaml", "metrics.jsonl", "before.json", "after.json", "samples.json"):
        assert any(part in sentence for sentence in run.missing), part


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="output_dir"):
        read_run(tmp_path / "nothing")


def test_a_comparison_is_made_where_none_is_stored(run_dir):
    stored = read_run(run_dir).comparison
    (run_dir / "evaluation/comparison.json").unlink()
    assert read_run(run_dir).comparison == stored


@pytest.mark.parametrize("content", ['{"prompts": [', "\x00\x00", ""])
def test_a_file_cut_off_while_written_is_named(run_dir, content):
    (run_dir / "evaluation/after.json").write_text(content)
    (run_dir / "evaluation/comparison.json").write_text(content)
    run = read_run(run_dir)
    assert run.after is None and run.comparison is None
    assert sum("after.json cannot be read" in sentence for sentence in run.missing) == 1


def test_evaluations_that_do_not_belong_together_are_named(run_dir):
    (run_dir / "evaluation/comparison.json").unlink()
    after = json.loads((run_dir / "evaluation/after.json").read_text())
    (run_dir / "evaluation/after.json").write_text(json.dumps(after | {"num_inference_steps": 20}))
    run = read_run(run_dir)
    assert run.comparison is None
    assert any("num_inference_steps" in sentence for sentence in run.missing)


def test_a_comparison_that_was_not_asked_for_is_not_missed(tmp_path):
    (tmp_path / "config.yaml").write_text("compare: false\n")
    (tmp_path / "metrics.jsonl").write_text('{"event": "step", "step": 1}\n')
    (sentence,) = read_run(tmp_path).missing
    assert "compare: false" in sentence


@pytest.mark.parametrize("content", ["{}", "[]", '{"prompts": 3}'])
def test_files_of_another_form_are_named(run_dir, content):
    (run_dir / "evaluation/comparison.json").write_text(content)
    (run_dir / "evaluation/after.json").write_text(content)
    run = read_run(run_dir)
    assert run.comparison is None
    assert len(run.missing) == 1


def test_broken_yaml_is_kept_as_text(run_dir):
    (run_dir / "config.yaml").write_text("a: [1, 2\n b: : :")
    run = read_run(run_dir)
    assert run.config == {} and run.config_text.startswith("a:")
    assert any("YAML" in sentence for sentence in run.missing)
