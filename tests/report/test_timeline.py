"""Pictures over training: which evaluations and prompts are shown, in which order."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from diffalign.report import write_report
from diffalign.report.grids import image_grid
from diffalign.report.run_folder import read_run
from diffalign.report.timeline import MOST_STEPS, timeline_section


def cards(folder):
    return timeline_section(read_run(folder))[0]


def greys(card: str) -> list[int]:
    """Middle pixel of each picture of a card."""
    found = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", card)]
    return [int(np.asarray(one.convert("L"))[one.height // 2, one.width // 2]) for one in found]


@pytest.fixture
def run(tmp_path):
    """A run with two prompts (two seeds of the first) at the given steps; grey level = step + 50 * number of sample."""

    def write(*steps):
        (tmp_path / "images").mkdir(exist_ok=True)
        content = {"columns": 2, "prompts": ["one", "one", "<i>two</i>"], "seeds": [7, 8, 9]}
        (tmp_path / "images/samples.json").write_text(json.dumps(content))
        for step in steps:
            level = torch.tensor([step, step + 50, step + 100.0]) / 255
            image_grid(level.view(3, 1, 1, 1).expand(3, 3, 32, 32), 2).save(tmp_path / f"images/step-{step:06d}.png")
        return tmp_path

    return write


def test_a_card_per_prompt_with_its_first_picture_by_rising_step(run):
    first, second = cards(run(20, 5, 100))
    assert greys(first) == [5, 20, 100] and greys(second) == [105, 120, 200]
    assert re.findall(r"step (\d+)<", first) == ["5", "20", "100"]
    assert "seed 7" in first and "seed 9" in second and "&lt;i&gt;two" in second


def test_a_long_run_is_thinned_evenly_from_its_first_to_its_last(run):
    (first, _) = cards(run(*range(0, 105, 5)))
    shown = [int(step) for step in re.findall(r"step (\d+)<", first)]
    assert len(shown) == MOST_STEPS and (shown[0], shown[-1]) == (0, 100)
    assert max(np.diff(shown)) - min(np.diff(shown)) <= 5


def test_sheets_that_nothing_describes_are_shown_whole(run):
    folder = run(10, 20)
    (folder / "images/samples.json").unlink()
    (card,) = cards(folder)
    assert "all pictures" in card and len(greys(card)) == 2


def test_damaged_sheets_and_other_files_are_left_out(run):
    folder = run(10, 20)
    (folder / "images/step-000010.png").write_bytes(b"cut off")
    (folder / "images/step-last.png").write_bytes(b"")
    assert greys(cards(folder)[0]) == [20]


def test_the_page_has_the_section_where_there_are_pictures(run, run_dir):
    assert "Pictures over training" not in write_report(run_dir).read_text()
    assert "Pictures over training" in write_report(run(10)).read_text()
