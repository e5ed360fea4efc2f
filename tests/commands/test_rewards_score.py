"""`diffalign rewards score`: tables, sheets, going on after a stop, and mistakes told before the work."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffalign import shapes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    """Six scenes: three true to their prompts, then three of noise."""
    images = tmp_path / "images"
    images.mkdir()
    lines = shapes.prompts("train")[::90][:6]
    generator = torch.Generator().manual_seed(0)
    scenes = shapes.render_batch([shapes.sample_scene(line, generator) for line in lines])
    scenes[3:] = torch.rand(scenes[3:].shape, generator=generator)
    for i, scene in enumerate(scenes):
        Image.fromarray((scene * 255).round().byte().permute(1, 2, 0).numpy()).save(images / f"{i}.png")
    text = [json.dumps({"file_name": f"{i}.png", **line}) for i, line in enumerate(lines)]
    (images / "metadata.jsonl").write_text("\n".join(text))
    return images


def table(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_good_stand_above_the_bad_in_table_and_sheet(diffalign, folder):
    outcome = diffalign("rewards", "score", folder, "--reward_funcs", "shapes", "jpeg", "--sheet", "3")
    assert outcome.status == 0, outcome.err
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(folder.parent / "images_scores.parquet").to_pylist()
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(6)]
    assert [row["shapes"] == 1 for row in rows] == [True] * 3 + [False] * 3
    assert rows[0]["width"] == 32 and json.loads(rows[0]["metadata"])["include"]
    sheet = np.array(Image.open(folder.parent / "images_scores_shapes.png"))
    upper, lower = sheet[: len(sheet) // 2], sheet[len(sheet) // 2 :]
    colourful = [np.abs(np.diff(half.astype(int), axis=1)).mean() for half in (upper, lower)]
    assert colourful[1] > 3 * colourful[0], "noise belongs into the lower half"
    assert (folder.parent / "images_scores_jpeg_compressibility.png").is_file()
    assert "shapes" in outcome.out and "failed" in outcome.out


COUNTING = """
def score(images, prompts, metadata):
    with open({log!r}, "a") as file:
        file.write("".join(f"{{prompt}}\\n" for prompt in prompts))
    return [None if prompt == {bad!r} else float(image.mean()) for image, prompt in zip(images, prompts)]
"""


def test_a_run_that_was_cut_off_goes_on_and_failures_are_tried_again(diffalign, folder, tmp_path):
    prompts = [line["prompt"] for line in (json.loads(t) for t in (folder / "metadata.jsonl").read_text().splitlines())]
    path, log = tmp_path / "mine.py", tmp_path / "asked.txt"
    path.write_text(COUNTING.format(log=str(log), bad=prompts[1]))
    words = ["rewards", "score", folder, "--reward_funcs", f"{path}:score", "--output", tmp_path / "out.jsonl"]
    (folder / "5.png").rename(tmp_path / "later.png")
    text = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(text[:5]))
    assert diffalign(*words, "--batch_size", "2").status == 0
    assert log.read_text().splitlines() == prompts[:5]
    (tmp_path / "later.png").rename(folder / "5.png")
    (folder / "metadata.jsonl").write_text("\n".join(text))
    assert diffalign(*words).status == 0
    assert log.read_text().splitlines()[5:] == [prompts[1], prompts[5]]
    rows = table(tmp_path / "out.jsonl")
    assert [row["score"] is None for row in rows] == [False, True, False, False, False, False]


def test_a_broken_image_has_no_score_and_sizes_may_differ(diffalign, folder, tmp_path, caplog):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    Image.new("L", (20, 30), 128).save(folder / "2.png")
    (folder / "x.heic").write_bytes(b"")
    outcome = diffalign("rewards", "score", folder, "--reward_funcs", "jpeg", "--output", tmp_path / "out.csv")
    assert outcome.status == 0, outcome.err
    rows = table(tmp_path / "out.csv")
    assert [row["jpeg_compressibility"] == "" for row in rows] == [False, True, False, False, False, False]
    assert (rows[2]["width"], rows[2]["height"]) == ("20", "30")
    assert "5       1" in outcome.out
    assert "1.png cannot be read" in caplog.text and "not images that can be read (.heic 1" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "{tmp}/x.xlsx"], "must end in .parquet, .csv, .jsonl"),
        (["--output", "{folder}/0.png/x.csv"], "is in the folder that is scored"),
        (["--output", "{tmp}/file/x.csv"], "file is a file, not a folder"),
        (["--output", "{tmp}/folder.csv"], "is a folder"),
        (["--output", "$NOT_SET_HERE/x.csv"], "no environment variable NOT_SET_HERE"),
        (["--output", "{tmp}/x.csv", "--device", "gpu"], "--device gpu is not here"),
        (["--output", "{tmp}/x.csv", "--reward_kwargs", "3"], "must be like"),
    ],
)
def test_mistakes_are_told_before_anything_is_scored(diffalign, folder, words, message):
    (folder.parent / "file").write_text("")
    (folder.parent / "folder.csv").mkdir()
    words = [word.format(tmp=folder.parent, folder=folder) for word in words]
    outcome = diffalign("rewards", "score", folder, "--reward_funcs", "jpeg", *words)
    assert outcome.status == 2 and message in outcome.err and not list(folder.parent.glob("*.sqlite"))


BRIGHTNESS = """
def height(images, prompts, metadata):
    return images.mean((1, 2, 3))
def prompt(images, prompts, metadata):
    {body}
    return images[:, 0, 0, 0]
"""


def test_pixels_are_scored_as_they_are_seen(diffalign, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.full((4, 4), 8000, np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.full((4, 4), 31, np.uint8)).save(folder / "flat.png")
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(folder / "clear.png")
    (tmp_path / "mine.py").write_text(BRIGHTNESS.format(body="pass"))
    words = ["--reward_funcs", tmp_path / "mine.py:height", "--without_prompts", "--output", tmp_path / "out.jsonl"]
    assert diffalign("rewards", "score", folder, *words).status == 0
    found = {row["file"]: row["reward_height"] for row in table(tmp_path / "out.jsonl")}
    assert found == {"clear.png": 1.0, "deep.png": pytest.approx(8000 / 65535), "flat.png": pytest.approx(31 / 255)}


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_reward_named_like_a_column_has_a_column_of_its_own(diffalign, folder, tmp_path, name):
    (tmp_path / "mine.py").write_text(BRIGHTNESS.format(body="pass"))
    rewards = [tmp_path / "mine.py:height", tmp_path / "mine.py:prompt"]
    outcome = diffalign("rewards", "score", folder, "--reward_funcs", *rewards, "--output", tmp_path / name)
    assert outcome.status == 0, outcome.err
    if name.endswith(".parquet"):
        row = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / name).to_pylist()[0]
    else:
        row = table(tmp_path / name)[0]
    assert int(row["height"]) == 32 and row["prompt"].startswith("a photo of")
    assert 0 < float(row["reward_height"]) < 1 and 0 <= float(row["reward_prompt"]) <= 1


def test_scores_are_rescued_when_their_place_is_taken_in_the_end(diffalign, folder, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "out.jsonl").write_text("older")
    monkeypatch.chdir(tmp_path / "cwd")
    place = tmp_path / "place"
    body = f"import os; os.makedirs({str(place / 'out.jsonl')!r}, exist_ok=True)"
    (tmp_path / "mine.py").write_text(BRIGHTNESS.format(body=body))
    words = ["--reward_funcs", tmp_path / "mine.py:prompt", "--output", place / "out.jsonl"]
    outcome = diffalign("rewards", "score", folder, *words)
    assert outcome.status == 0, outcome.err
    rescued = tmp_path / "cwd" / "out_1.jsonl"
    assert f"the result is in {rescued}" in outcome.err and str(rescued) in outcome.out
    assert len(table(rescued)) == 6 and (tmp_path / "cwd" / "out.jsonl").read_text() == "older"
    assert not list((tmp_path / "cwd").glob(".*"))


def test_what_generate_wrote_is_scored_with_its_own_prompts(diffalign, tiny_model, tmp_path):
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in shapes.prompts("train")[:2]), encoding="utf-8"
    )
    words = ["--prompts", tmp_path / "p.jsonl", "--images_per_prompt", "2", "--num_inference_steps", "1"]
    assert diffalign("generate", *words, "--model", tiny_model, "--output", tmp_path / "out").status == 0
    words = ["--reward_funcs", "shapes", "--output", tmp_path / "scores.jsonl"]
    outcome = diffalign("rewards", "score", tmp_path / "out", *words)
    assert outcome.status == 0, outcome.err
    rows = table(tmp_path / "scores.jsonl")
    assert [row["file"] for row in rows] == [f"0000{i}/samples/000{j}.png" for i in range(2) for j in range(2)]
    assert [row["prompt"] for row in rows[::2]] == [line["prompt"] for line in shapes.prompts("train")[:2]]
    assert rows[0]["metadata"]["include"]


def test_a_folder_of_any_alphabet_is_scored_under_an_ascii_locale(folder, tmp_path):
    """The locale without UTF-8 mode: what a bare container or a cron job may have."""
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    images = folder.rename(tmp_path / "\u00e9t\u00e9")
    (images / "0.png").rename(images / "\u00e9.png")
    (images / "metadata.jsonl").write_text('{"file_name": "\u00e9.png", "prompt": "caf\u00e9"}', encoding="utf-8")
    words = ["--reward_funcs", "jpeg", "--without_prompts", "--output", str(tmp_path / "\u00e9.csv")]
    done = subprocess.run(
        [sys.executable, "-m", "diffalign", "rewards", "score", str(images), *words],
        cwd=ROOT, env=os.environ | ascii_only, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(csv.DictReader((tmp_path / "\u00e9.csv").open(encoding="utf-8")))
    assert (rows[-1]["file"], rows[-1]["prompt"]) == ("\u00e9.png", "caf\u00e9")


def test_parquet_without_its_library_says_how_to_get_it(diffalign, folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = diffalign("rewards", "score", folder, "--reward_funcs", "jpeg")
    assert outcome.status == 2 and "diffalign[parquet]" in outcome.err


def test_images_without_a_prompt_are_an_error_unless_meant(diffalign, folder, tmp_path):
    (folder / "metadata.jsonl").unlink()
    words = ["rewards", "score", folder, "--reward_funcs", "jpeg", "--output", tmp_path / "out.csv"]
    outcome = diffalign(*words)
    assert outcome.status == 2 and "6 of 6 images" in outcome.err
    assert diffalign(*words, "--without_prompts").status == 0


def test_a_reward_that_compares_images_is_refused(diffalign, folder, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "class Judge:\n    name = 'judge'\n    def compare(self, a, b, prompts, metadata): return a.mean((1, 2, 3))\n"
    )
    words = ["--reward_funcs", f"{path}:Judge", "--output", tmp_path / "out.csv"]
    outcome = diffalign("rewards", "score", folder, *words)
    assert outcome.status == 2 and "judge compares images" in outcome.err
