"""Pictures on the page: cards by prompt, strips in seed order, whole sheets where they cannot be cut."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import torch
from PIL import Image

from diffalign.report.grids import image_grid
from diffalign.report.pictures import GAP, LARGEST, picture_section
from diffalign.report.run_folder import read_run


def embedded(card: str) -> list[Image.Image]:
    """Pictures of a card, decoded."""
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", card)]


def write_samples(folder, prompts, seeds, columns):
    (folder / "images").mkdir(exist_ok=True)
    content = {"columns": columns, "prompts": prompts, "seeds": seeds}
    (folder / "images/samples.json").write_text(json.dumps(content))


def test_a_card_per_prompt_with_its_own_pictures_in_order(tmp_path):
    prompts, seeds = ["one", "one", "two"], [7, 8, 7]
    write_samples(tmp_path, prompts, seeds, columns=2)
    greys = torch.linspace(0.1, 0.9, 6).view(2, 3, 1, 1, 1).expand(2, 3, 3, 32, 32)
    for tag, images in zip(("before", "after"), greys, strict=True):
        image_grid(images, 2).save(tmp_path / f"images/{tag}.png")
    first, second = picture_section(read_run(tmp_path))
    assert "one" in first and "seeds 7, 8" in first
    assert "two" in second and "seed 7" in second
    before, after = (np.asarray(strip.convert("L")) for strip in embedded(first))
    assert before.shape == (96, 2 * 96 + GAP)
    shown = [before[50, 50], before[50, 150], after[50, 50], after[50, 150]]
    expected = [greys[0, 0], greys[0, 1], greys[1, 0], greys[1, 1]]
    np.testing.assert_allclose(shown, [float(g.mean()) * 255 for g in expected], atol=1)


def test_prompts_are_text(run_dir):
    card = picture_section(read_run(run_dir))[2]
    assert "&lt;i&gt;green" in card and "<i>" not in card


def test_one_model_alone_is_shown(run_dir):
    (run_dir / "images/after.png").unlink()
    cards = picture_section(read_run(run_dir))
    assert len(cards) == 3
    assert all(len(embedded(card)) == 1 for card in cards)


def test_sheets_without_a_description_are_shown_whole(run_dir):
    (run_dir / "images/samples.json").unlink()
    sheets = picture_section(read_run(run_dir))
    assert [len(embedded(sheet)) for sheet in sheets] == [1, 1]
    with Image.open(run_dir / "images/before.png") as original:
        assert embedded(sheets[0])[0].size == original.size


def test_a_description_of_other_pictures_is_not_used(run_dir):
    write_samples(run_dir, ["a"] * 50, list(range(50)), columns=11)
    assert len(picture_section(read_run(run_dir))) == 2


def test_large_photographs_are_reduced(tmp_path):
    write_samples(tmp_path, ["big"], [0], columns=1)
    image_grid(torch.rand(1, 3, 600, 900, generator=torch.manual_seed(0)), 1).save(tmp_path / "images/before.png")
    card = picture_section(read_run(tmp_path))[0]
    assert max(embedded(card)[0].size) == LARGEST
    assert len(card) < 200_000


def test_broken_and_absent_files_give_nothing(run_dir, tmp_path):
    for tag in ("before", "after"):
        path = run_dir / f"images/{tag}.png"
        path.write_bytes(path.read_bytes()[:200])
    assert picture_section(read_run(run_dir)) == []
