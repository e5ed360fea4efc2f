"""`evaluate --suite` on the embedded world, through the same code as for real models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffalign.commands import _suite_images
from diffalign.shapes import prompts, render_batch, sample_scene
from tests.commands.conftest import Outcome

Command = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[2]
GENEVAL = ("evaluate", "--suite", "geneval", "--prompts", "shapes:heldout", "--detector", "shapes")
QUICK = ("--max_prompts", "6", "--images_per_prompt", "2", "--guidance_scales", "2", "--num_inference_steps", "3")


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def save(images: Tensor, files: Sequence[Path]) -> None:
    for image, file in zip(images, files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()).save(file)


def render(lines: Sequence[dict[str, Any]], each: int) -> Tensor:
    """Scenes that show what the lines ask for."""
    generator = torch.Generator().manual_seed(0)
    return render_batch([sample_scene(line, generator) for line in lines for _ in range(each)])


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """GenEval's layout, six lines of the held-out split spread over the tasks, two true scenes each."""
    lines = prompts("heldout")
    lines = [lines[i * len(lines) // 6] for i in range(6)]
    folder = tmp_path / "theirs"
    save(render(lines, 2), [folder / f"{i:05d}/samples/{j:05d}.png" for i in range(6) for j in range(2)])
    return folder


def test_a_run_that_was_stopped_goes_on_to_the_same_result(
    diffalign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*GENEVAL, *QUICK, "--batch_size", "5", "--judge_batch_size", "5")
    assert diffalign(*options, "--output", tmp_path / "whole").status == 0
    whole, write = _suite_images.save_whole, {"left": 7}

    def stop(image: Tensor, path: Path) -> None:
        write["left"] -= 1
        if write["left"] < 0:
            raise KeyboardInterrupt
        whole(image, path)

    monkeypatch.setattr(_suite_images, "save_whole", stop)
    assert diffalign(*options, "--output", tmp_path / "parts").status == 130
    drawn = sorted(tmp_path.glob("parts/images/*/samples/*.png"))
    assert len(drawn) == 7 and not (tmp_path / "parts" / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in drawn}
    monkeypatch.undo()
    assert diffalign(*options, "--output", tmp_path / "parts").status == 0
    assert {path: path.stat().st_mtime_ns for path in drawn} == before
    assert (tmp_path / "parts/result.json").read_text() == (tmp_path / "whole/result.json").read_text()
    first, again = (sorted((tmp_path / name).glob("images/*/samples/*.png")) for name in ("whole", "parts"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert len({path.read_bytes() for path in first}) == 12  # every image has a seed of its own


def test_a_finished_run_is_judged_again_without_model_and_detector(
    diffalign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert diffalign(*GENEVAL, *QUICK, "--output", tmp_path).status == 0
    text = (tmp_path / "result.json").read_text()
    from diffalign.commands import _suite_generation
    from diffalign.rewards.detectors import shapes

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(_suite_generation, "load_model", refuse)
    monkeypatch.setattr(shapes.ShapesDetector, "__call__", refuse)
    assert diffalign(*GENEVAL, "--max_prompts", "6", "--output", tmp_path).status == 0
    assert (tmp_path / "result.json").read_text() == text


@pytest.mark.parametrize(("option", "value"), [("--seed", "1"), ("--guidance_scales", "3"), ("--max_prompts", "5")])
def test_a_folder_that_was_begun_otherwise_is_refused(
    option: str, value: str, diffalign: Command, tmp_path: Path
) -> None:
    quick = ("--max_prompts", "2", "--images_per_prompt", "1", "--guidance_scales", "2", "--num_inference_steps", "1")
    assert diffalign(*GENEVAL, *quick, "--output", tmp_path).status == 0
    key = {"--guidance_scales": "guidance_scale", "--max_prompts": "prompts"}.get(option, option.removeprefix("--"))
    again = diffalign(*GENEVAL, *quick, option, value, "--output", tmp_path)
    assert again.status == 2 and f"was begun with {key}" in again.err and "another --output" in again.err


def test_true_scenes_are_right_and_the_result_says_how_it_came_about(
    diffalign: Command, rendered: Path, tmp_path: Path
) -> None:
    options = ("--max_prompts", "6", "--images_per_prompt", "2", "--images", rendered, "--output", tmp_path / "out")
    out = diffalign(*GENEVAL, *options)
    found = result(tmp_path / "out")
    assert out.status == 0 and found["overall"]["score"] == 1.0 and len(found["tasks"]) == 6
    assert found["variant"] == "geneval@shapes" and "geneval@shapes" in out.out
    assert found["judges"]["detect"] == {"name": "shapes", "model": "diffalign.shapes.detect", "revision": "0.1.0"}
    assert found["generation"] is None and found["images"]["count"] == 12 and found["subset"] == "6 of 288 prompts"
    assert {"diffalign", "torch", "diffusers", "transformers"} <= set(found["versions"])
    assert (tmp_path / "out/comparison.html").is_file() and not (tmp_path / "out/images").exists()


def test_missing_extra_and_broken_images_are_named(diffalign: Command, rendered: Path, tmp_path: Path) -> None:
    (rendered / "00001/samples/00001.png").unlink()
    (rendered / "00002/samples/00000.png").write_bytes(b"no image")
    save(torch.rand(2, 3, 32, 32), [rendered / "00003/samples/00007.png", rendered / "cover.png"])
    options = ("--max_prompts", "6", "--images_per_prompt", "2", "--images", rendered, "--output", tmp_path / "out")
    out = diffalign(*GENEVAL, *options)
    assert out.status == 2 and "missing images: 1 (00001/samples/0001.png)" in out.err
    assert "unreadable images: 1 (00002/samples/00000.png)" in out.err and "--partial" in out.err
    assert not (tmp_path / "out/result.json").exists()
    out = diffalign(*GENEVAL, *options, "--partial")
    found = result(tmp_path / "out")
    assert out.status == 0 and "images of no prompt, left out: 2 (" in out.out
    assert found["images"] == {
        "folder": rendered.as_posix(), "count": 11, "missing": ["00001/samples/0001.png"],
        "broken": ["00002/samples/00000.png"], "extra": ["00003/samples/00007.png", "cover.png"], "failed": [],
    }  # fmt: skip
    assert found["overall"]["images"] == 10 and found["overall"]["score"] == 1.0
    lines = {line["files"][0]: line for line in found["prompts"]}
    assert lines["00002/samples/00000.png"]["images"] == [None, 1.0]


def test_images_of_other_prompts_are_refused(
    diffalign: Command, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (rendered / "00000/metadata.jsonl").write_text('{"prompt": "a photo of a cat"}\n')
    out = diffalign(*GENEVAL, "--max_prompts", "6", "--images_per_prompt", "2", "--images", rendered)
    assert out.status == 2 and "a photo of a cat" in out.err
    out = diffalign(*GENEVAL, "--max_prompts", "6", "--images", tmp_path / "nowhere")
    assert out.status == 2 and "there is no folder" in out.err


def compbench(
    tmp_path: Path, category: str, lines: Sequence[tuple[dict[str, Any], dict[str, Any]]]
) -> tuple[str, Path]:
    """Prompt file and true scenes in T2I-CompBench's layout."""
    file, folder = tmp_path / f"{category}.jsonl", tmp_path / f"{category}_images"
    tmp_path.mkdir()
    file.write_text("".join(json.dumps(record) + "\n" for record, _ in lines))
    names = [folder / f"samples/{record['prompt']}_{i:06d}.png" for i, (record, _) in enumerate(lines)]
    save(render([scene for _, scene in lines], 1), names)
    return str(file), folder


def test_compbenchs_places_are_judged_on_scenes_in_its_own_layout(diffalign: Command, tmp_path: Path) -> None:
    """Objects as asked for score near 1; under the opposite relation only half is left, for being there."""
    words = {"left of": "on the left of", "right of": "on the right of"}
    for turned, low, high in ((False, 0.9, 1.0), (True, 0.0, 0.5)):
        lines = []
        for line in [line for line in prompts("train") if line["tag"] == "position"][::29]:
            target, subject = line["include"]
            relation = subject["position"][0]
            if relation in words:
                asked = relation if not turned else {"left of": "right of", "right of": "left of"}[relation]
                lines.append(({"prompt": f"a {subject['class']} {words[asked]} a {target['class']}"}, line))
        file, folder = compbench(
            tmp_path / str(turned), "spatial", list({r["prompt"]: (r, s) for r, s in lines}.values())
        )
        options = ("--detector", "shapes", "--images", folder, "--images_per_prompt", "1", "--output", tmp_path / "out")
        assert diffalign("evaluate", "--suite", "compbench_spatial", "--prompts", file, *options).status == 0
        assert low <= result(tmp_path / "out")["overall"]["score"] <= high
    assert result(tmp_path / "out")["variant"] == "compbench_spatial@shapes"


def test_compbenchs_numbers_are_judged_on_scenes_in_its_own_layout(diffalign: Command, tmp_path: Path) -> None:
    """Half of the score is for presence, half for the number."""
    lines = [line for line in prompts("train") if line["tag"] == "counting"][:8]
    for extra, wanted in ((0, 1.0), (1, 0.5)):
        records = [
            {"prompt": line["prompt"], "counts": {line["include"][0]["class"]: line["include"][0]["count"] + extra}}
            for line in lines
        ]
        file, folder = compbench(tmp_path / str(extra), "numeracy", list(zip(records, lines, strict=True)))
        options = ("--detector", "shapes", "--images", folder, "--images_per_prompt", "1", "--output", tmp_path / "out")
        assert diffalign("evaluate", "--suite", "compbench_numeracy", "--prompts", file, *options).status == 0
        assert result(tmp_path / "out")["overall"]["score"] == pytest.approx(wanted, abs=0.07)


DPG = """item_id,text,proposition_id,dependency,tuple,question_natural_language
skipped,as released,1,0,entity - whole (x),Is there anything?
one,a bright scene,1,0,entity - whole (scene),Is there light?
one,a bright scene,2,1,attribute - color (scene),Is it white?
two,a dark scene,1,0,entity - whole (scene),Is there light?
"""


def test_dpgs_sheets_of_four_are_read_cell_by_cell(diffalign: Command, tmp_path: Path) -> None:
    """Questions are answered yes by bright cells: of the first sheet two, of the second none."""
    (tmp_path / "dpg_bench.csv").write_text(DPG)
    (tmp_path / "judge.py").write_text(
        "def answer(images, questions):\n"
        "    return [['yes' if i.mean() > 0.5 else 'no'] * len(q) for i, q in zip(images, questions)]\n"
    )
    cells = torch.zeros(2, 3, 8, 12)
    cells[0, :, :4, 6:] = cells[0, :, 4:, :6] = 1.0
    save(cells, [tmp_path / "sheets/one.png", tmp_path / "sheets/two.png"])
    words = ("evaluate", "--suite", "dpg", "--prompts", tmp_path / "dpg_bench.csv", "--output", tmp_path / "out")
    words = (*words, "--judges", f"answer={tmp_path / 'judge.py'}:answer", "--images", tmp_path / "sheets")
    out = diffalign(*words)
    assert out.status == 0, out.err
    found = result(tmp_path / "out")
    assert [line["images"] for line in found["prompts"]] == [[0.0, 1.0, 1.0, 0.0], [0.0] * 4]
    assert found["overall"]["score"] == 0.25 and found["variant"] == "dpg@judge.py:answer"
    assert (tmp_path / "out/comparison.html").read_text().count("data:image/png") > 4
    (tmp_path / "sheets/two.png").unlink()
    assert "missing images: 1 (two.png)" in diffalign(*words).err
    assert diffalign(*words, "--partial").status == 0 and result(tmp_path / "out")["details"] == {}


JUDGES = """
import torch
def find(images, labels):
    return [[{"label": n, "score": 0.9, "box": [9 * i, 9, 9 * i + 8, 17]} for i, n in enumerate(ns)] for ns in labels]
def yes(images, questions):
    return [[0.5] * len(texts) for texts in questions]
def near(images):
    return images.mean(1)
def alike(images, texts):
    return torch.full((len(images),), 0.25)
"""
PROMPTS = {
    "color": "a red cube and a blue ball", "shape": "a round cube and a square ball", "spatial": "a dog near a cat",
    "texture": "a metallic cube and a wooden ball", "3d_spatial": "a dog in front of a cat",
    "numeracy": "two dogs", "non_spatial": "A man is reading a book",
    "complex": "The big red ball bounced next to the small wooden blue box.",
}  # fmt: skip


def test_all_categories_of_a_benchmark_are_one_result(diffalign: Command, tmp_path: Path) -> None:
    files = tmp_path / "prompts"
    files.mkdir()
    for task, prompt in PROMPTS.items():
        (files / f"{task}_val.txt").write_text(prompt + "\n")
    (tmp_path / "judges.py").write_text(JUDGES)
    own = {"yes": "yes", "depth": "near", "similarity": "alike"}
    judges = [f"{role}={tmp_path / 'judges.py'}:{name}" for role, name in own.items()]
    options = ("--detector", f"{tmp_path / 'judges.py'}:find", "--judges", *judges, "--output", tmp_path / "out")
    quick = ("--images_per_prompt", "1", "--guidance_scales", "1", "--num_inference_steps", "1")
    out = diffalign("evaluate", "--suite", "t2i_compbench", "--prompts", files, *options, *quick)
    assert out.status == 0, out.err
    found = result(tmp_path / "out")
    assert set(found["tasks"]) == set(PROMPTS)
    assert found["tasks"]["color"]["score"] == 0.25 and found["tasks"]["non_spatial"]["score"] == 0.25
    scores = [entry["score"] for entry in found["tasks"].values()]
    assert found["overall"]["score"] == pytest.approx(sum(scores) / len(scores))
    assert (tmp_path / "out/images/spatial/samples/a dog near a cat_000000.png").is_file()
    assert found["variant"].startswith("t2i_compbench@") and "judges.py:find" in found["variant"]
    missing = diffalign("evaluate", "--suite", "t2i_compbench", "--prompts", tmp_path, *options)
    assert missing.status == 2 and "_val.txt" in missing.err


def test_one_page_compares_any_number_of_results_of_one_variant(
    diffalign: Command, rendered: Path, tmp_path: Path
) -> None:
    options = ("--max_prompts", "6", "--images_per_prompt", "2")
    assert diffalign(*GENEVAL, *options, "--images", rendered, "--output", tmp_path / "a").status == 0
    others = [tmp_path / "a/result.json"]
    drawn = ("--guidance_scales", "2", "--num_inference_steps", "2", "--label", "few steps", "--output", tmp_path / "b")
    assert diffalign(*GENEVAL, *options, *drawn, "--against", *others).status == 0
    page = (tmp_path / "b/comparison.html").read_text()
    assert "few steps over theirs" in page and page.count("data:image/png") > 20
    (tmp_path / "mine.py").write_text(
        "from diffalign.shapes import detect\ndef find(images, labels):\n    return detect(images)\n"
    )
    other = (
        "evaluate",
        "--suite",
        "geneval",
        "--prompts",
        "shapes:heldout",
        "--detector",
        f"{tmp_path / 'mine.py'}:find",
    )
    mine = (
        *other,
        *options,
        "--judges",
        "color=none",
        "--images",
        rendered,
        "--output",
        tmp_path / "c",
        "--against",
        *others,
    )
    refused = diffalign(*mine)
    assert refused.status == 2 and "differ in variant (geneval@mine.py:find against geneval@shapes)" in refused.err
    assert "--mixed" in refused.err and not (tmp_path / "c/result.json").exists()
    assert diffalign(*mine, "--mixed").status == 0
    assert "scores by different judges" in (tmp_path / "c/comparison.html").read_text()
    both = diffalign("report", tmp_path / "a/result.json", tmp_path / "b/result.json", "--output", tmp_path / "p.html")
    assert both.status == 0 and "few steps over theirs" in (tmp_path / "p.html").read_text()


def test_lines_of_one_prompt_are_one_prompt_with_more_images(diffalign: Command, tmp_path: Path) -> None:
    line = json.dumps(next(line for line in prompts("train") if line["tag"] == "colors"))
    (tmp_path / "twice.jsonl").write_text(f"{line}\n{line}\n")
    words = ("evaluate", "--suite", "geneval", "--prompts", tmp_path / "twice.jsonl", "--detector", "shapes", *QUICK)
    for name, against in (("a", ()), ("b", ("--against", tmp_path / "a/result.json"))):
        assert diffalign(*words, "--output", tmp_path / name, *against).status == 0
        (entry,) = result(tmp_path / name)["prompts"]
        assert len(entry["files"]) == 4 and len({Path(file).parts[0] for file in entry["files"]}) == 2
    assert "b over a" not in (tmp_path / "b/comparison.html").read_text()  # both are called by their model


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--suite", "genval"), "did you mean `geneval`"),
        (("--suite", "geneval"), "needs --prompts"),
        (("--suite", "geneval", "--prompts", "x.jsonl", "--reward_funcs", "jpeg"), "no use for --reward_funcs"),
        (("--suite", "geneval", "--prompts", "x.jsonl", "--judges", "depth=dpt"), "no use for a judge of depth"),
        (("--suite", "geneval", "--prompts", "x.jsonl", "--judges", "colour=clip"), "did you mean `color`"),
        (
            ("--suite", "geneval", "--prompts", "x.jsonl", "--detector", "shapes", "--judge_kwargs", "{yes: {}}"),
            "judge_kwargs",
        ),
        (("--suite", "geneval", "--prompts", "x.jsonl", "--guidance_scales", "1", "2"), "one guidance scale"),
        (("--suite", "geneval", "--prompts", "nowhere.jsonl", "--detector", "shapes"), "nowhere.jsonl"),
        (("--detector", "shapes"), "--detector is for benchmark suites"),
    ],
)
def test_mistakes_are_told_before_any_work(
    words: Sequence[str], message: str, diffalign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = diffalign("evaluate", *words)
    assert out.status == 2 and message in out.err


def test_the_list_names_every_suite_with_its_judges(diffalign: Command) -> None:
    out = diffalign("evaluate", "--suite", "list").out
    assert "geneval " in out and "compbench_3d_spatial" in out and "detect depth" in out


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_result(tmp_path: Path) -> None:
    """SIGKILL in the middle of drawing, and again: the files and the result are those of a run in one piece."""
    words = [sys.executable, "-m", "diffalign", *GENEVAL, *QUICK, "--max_prompts", "12", "--batch_size", "3"]
    subprocess.run([*words, "--output", tmp_path / "whole"], env=environment(), check=True, capture_output=True)
    for _ in range(2):
        process = subprocess.Popen(
            [*words, "--output", tmp_path / "parts"],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        known = len(list(tmp_path.glob("parts/images/*/samples/[0-9]*.png")))
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("parts/images/*/samples/[0-9]*.png"))) < known + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*words, "--output", tmp_path / "parts"], env=environment(), check=True, capture_output=True)
    assert (tmp_path / "parts/result.json").read_text() == (tmp_path / "whole/result.json").read_text()


@pytest.mark.slow
def test_two_processes_share_the_work_and_give_the_same_result(tmp_path: Path) -> None:
    words = ["diffalign", *GENEVAL, *QUICK, "--batch_size", "3", "--judge_batch_size", "3", "--device", "cpu"]
    subprocess.run(
        [sys.executable, "-m", *words, "--output", tmp_path / "one"], env=environment(), check=True, capture_output=True
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29631"]
    done = subprocess.run(
        [*launcher, "-m", *words, "--output", tmp_path / "two"], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one/result.json").read_text() == (tmp_path / "two/result.json").read_text()
