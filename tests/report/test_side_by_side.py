"""Several runs on one page."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from diffalign.report.run_folder import read_run
from diffalign.report.side_by_side import named_runs, write_side_by_side
from tests.report.test_page import headings, read
from tests.report.test_progress import drawn


@pytest.fixture
def other(run_dir, tmp_path):
    """A second run: another name and rate, without an evaluation at its end."""
    folder = shutil.copytree(run_dir, tmp_path / "other")
    config = (folder / "config.yaml").read_text().replace("flow-grpo-shapes", "<b>slow</b>")
    (folder / "config.yaml").write_text(config.replace("learning_rate: 0.0003", "learning_rate: 0.0001"))
    for name in ("after.json", "comparison.json"):
        (folder / "evaluation" / name).unlink()
    return folder


def test_the_page_has_results_curves_and_differences(run_dir, other, tmp_path):
    text, _ = read(write_side_by_side([run_dir, other], tmp_path / "both.html"))
    assert headings(text) == ["Results", "Progress", "Update", "Settings that differ"]
    assert "<b>slow" not in text and "&lt;b&gt;slow" in text
    assert re.search("<th>learning_rate</th><td>0.0003</td><td>0.0001</td>", text)
    assert "<th>seed</th>" not in text and "<th>run_name</th>" not in text
    rows = re.findall("<tr><th>(?:flow-grpo-shapes|&lt;b&gt;slow&lt;/b&gt;)</th>(.*?)</tr>", text)
    gain = json.loads((run_dir / "evaluation/comparison.json").read_text())["overall"]["gain"]
    assert f"+{gain:.3f}" in rows[0] and "+" not in rows[1] and rows[1].count("–") == 5


def test_curves_of_one_measure_share_a_panel(run_dir, other, tmp_path):
    text, _ = read(write_side_by_side([run_dir, other], tmp_path / "both.html"))
    held_out, reward = (figure for figure in re.findall("<figure.*?</figure>", text) if "panel large" in figure)
    assert list(drawn(held_out)) == ["flow-grpo-shapes, guidance 2", "&lt;b&gt;slow&lt;/b&gt;, guidance 2"]
    assert [name.split(",")[1] for name in drawn(reward)] == [" guidance 1", " guidance 1"]


def test_runs_of_one_name_are_told_apart(run_dir, tmp_path):
    run, twin = read_run(run_dir), read_run(shutil.copytree(run_dir, tmp_path / "twin"))
    names = list(named_runs([run, twin, run]))
    assert names == [f"{tmp_path.name}/run", f"{tmp_path.name}/twin", f"{tmp_path.name}/run (2)"]


def test_protocols_that_differ_are_named(run_dir, tmp_path):
    twin = shutil.copytree(run_dir, tmp_path / "twin")
    path = twin / "evaluation/comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_inference_steps": 20}))
    assert "different protocols" in write_side_by_side([run_dir, twin], tmp_path / "a.html").read_text()
    assert "different protocols" not in write_side_by_side([run_dir, run_dir], tmp_path / "b.html").read_text()


def test_one_run_is_not_several(run_dir, tmp_path):
    with pytest.raises(ValueError, match="at least two"):
        write_side_by_side([run_dir], tmp_path / "a.html")
