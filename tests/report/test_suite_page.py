"""Results of suites side by side: what may be compared, the figures, the pictures, the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffalign.report.html import VOID
from diffalign.report.suite_bars import task_bars
from diffalign.report.suite_page import write_suite_page
from diffalign.report.suite_results import check_same_protocol, gain_over, read_result, score_entries, with_labels

SCORES = {"counting": [[1.0, 0.0], [0.0, 0.0]], "colors": [[1.0, 1.0], [0.5, None], [None, None]]}


def content(label: str, scores: dict[str, list[list[float | None]]] = SCORES, **changes: Any) -> dict[str, Any]:
    """A result with two images per prompt."""
    lines = []
    for task, prompts in scores.items():
        for i, images in enumerate(prompts):
            known = [value for value in images if value is not None]
            mean = sum(known) / len(known) if known else None
            files = [f"{task}{i}_{j}.png" for j in range(len(images))]
            lines.append({"prompt": f"{task} <{i}>", "task": task, "score": mean, "images": images, "files": files})
    return {
        "suite": "geneval", "variant": "geneval@mask2former", "label": label, "overall": {}, "overall_of": "tasks",
        "tasks": {}, "prompts": lines, "judges": {"detect": {"name": "mask2former", "revision": "a1"}},
        "images": {"folder": "images", "missing": ["x.png"]}, "images_per_prompt": 2, "subset": "5 of 9 prompts",
        "generation": {"model": "sd<3>", "seed": 0}, "versions": {"torch": "2"}, **changes,
    }  # fmt: skip


def write(folder: Path, found: dict[str, Any]) -> Path:
    """A result file, its pictures beside it."""
    (folder / "images").mkdir(parents=True)
    for line in found["prompts"]:
        for file in line["files"]:
            Image.new("RGB", (8, 8), "red").save(folder / "images" / file)
    (folder / "result.json").write_text(json.dumps(found))
    return folder / "result.json"


def test_the_whole_is_the_mean_of_the_tasks_or_of_the_prompts() -> None:
    tasks = score_entries(content("a"))
    assert tasks["counting"]["score"] == 0.25 and tasks["colors"]["score"] == 0.75
    assert (tasks["colors"]["prompts"], tasks["colors"]["images"]) == (2, 3)
    assert tasks["overall"]["score"] == 0.5
    uneven = {**SCORES, "counting": [[1.0, 0.0]]}
    assert score_entries(content("a", uneven))["overall"]["score"] == pytest.approx((0.5 + 0.75) / 2)
    images = score_entries(content("a", uneven, overall_of="images"))
    assert images["overall"]["score"] == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    for entry in tasks.values():
        assert entry["low"] <= entry["score"] <= entry["high"]


def test_a_gain_is_paired_by_prompt_whatever_the_order_and_leaves_out_what_one_could_not_score(tmp_path: Path) -> None:
    more = {"colors": [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], "counting": [[1.0, 1.0], [0.0, 0.0]]}
    first, other = (read_result(write(tmp_path / name, content(name, s))) for name, s in (("a", SCORES), ("b", more)))
    gains = gain_over(first, other)
    assert list(gains) == ["counting", "colors", "overall"]
    assert gains["counting"]["gain"] == 0.25 and gains["colors"]["gain"] == 0.25 and gains["colors"]["prompts"] == 2
    assert gains["overall"]["gain"] == 0.25
    same = gain_over(first, first)
    assert all(entry["gain"] == entry["low"] == entry["high"] == 0 for entry in same.values())


@pytest.mark.parametrize(
    ("change", "message", "mixable"),
    [
        ({"variant": "geneval@owlv2"}, "differ in variant (geneval@mask2former against geneval@owlv2)", True),
        (
            {"judges": {"detect": {"name": "mask2former", "revision": "b2"}}},
            "differ in judges (detect: revision: a1",
            True,
        ),
        ({"suite": "dpg"}, "differ in suite (geneval against dpg)", False),
        ({"prompts": []}, "not measured on the same prompts", False),
    ],
)
def test_what_was_measured_otherwise_is_refused_unless_mixed(
    change: dict[str, Any], message: str, mixable: bool, tmp_path: Path
) -> None:
    results = [read_result(write(tmp_path / name, content(name, **c))) for name, c in (("a", {}), ("b", change))]
    with pytest.raises(ValueError, match=re.escape(message)):
        check_same_protocol(results)
    if mixable:
        (note,) = check_same_protocol(results, mixed=True)
        assert message in note
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            check_same_protocol(results, mixed=True)


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for text, message in (("{", "not JSON"), ("[]", "no result"), ('{"suite": "geneval"}', "lacks variant")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_result(file)


def test_the_page_is_whole_escaped_and_shows_every_result(tmp_path: Path) -> None:
    from tests.report.test_page import Balance

    results = [read_result(write(tmp_path / name, content(name))) for name in ("base", "trained", "trained_again")]
    page = write_suite_page(results, tmp_path / "page.html").read_text()
    balance = Balance()
    balance.feed(page)
    assert not balance.open and VOID
    for text in ("trained over base", "trained_again over base", "Pictures by task", "base: worst images", "a1"):
        assert text in page
    assert "overall is the mean of the tasks" in page
    assert "counting &lt;0&gt;" in page and "sd&lt;3&gt;" in page and "<0>" not in page
    assert "1 image is missing and without a score, first x.png" in page and "5 of 9 prompts" in page
    sources = [attributes["src"] for tag, attributes in balance.seen if tag == "img"]
    assert len(sources) > 10 and all(source.startswith("data:image/") for source in sources)


def test_without_pictures_the_page_says_so_and_equal_labels_are_numbered(tmp_path: Path) -> None:
    file = write(tmp_path / "a", content("same"))
    for picture in (tmp_path / "a/images").iterdir():
        picture.unlink()
    (tmp_path / "a/images").rmdir()
    results = [read_result(file), read_result(file)]
    assert [one.label for one in with_labels(results)] == ["same (1)", "same (2)"]
    page = write_suite_page(results, tmp_path / "page.html").read_text()
    assert "same (2) over same (1)" in page and "not at hand" in page and "<img" not in page


def test_best_and_worst_take_turns_over_tasks_and_prompts(tmp_path: Path) -> None:
    from diffalign.report.suite_pictures import extremes

    scores: dict[str, list[list[float | None]]] = {
        "one": [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]], "two": [[0.0, 1.0], [1.0, 1.0], [0.5, 1.0]],
    }  # fmt: skip
    (_, _, worst), (_, _, best) = extremes(read_result(write(tmp_path / "a", content("a", scores))))
    assert len(worst) == len(best) == 6
    titles = [re.findall(r"<b>(\w+) &lt;(\d)&gt;", card)[0] for card in worst]
    assert titles[:4] == [("one", "0"), ("two", "0"), ("one", "1"), ("one", "0")] and titles[4] == ("two", "2")
    assert {re.findall(r"<b>(\w+)", card)[0] for card in best[:2]} == {"one", "two"}


def test_bars_are_as_long_as_their_scores() -> None:
    entries = {task: {"score": s, "low": s, "high": s} for task, s in (("a", 0.25), ("b", 1.0))}
    drawing = str(task_bars([("x", entries), ("y", entries)]))
    widths = [float(width) for width in re.findall(r'<rect[^>]*width="([\d.]+)"', drawing)]
    assert len(widths) == 4 and widths[0] / widths[2] == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("scores", [(-18.0, -3.0), (0.0, 0.0), (-2.0, 4.0), (0.2, 0.9)])
def test_bars_of_any_sign_begin_at_zero_and_end_at_their_score(scores):
    entries = {str(i): {"score": v, "low": v, "high": v} for i, v in enumerate(scores)}
    drawing = str(task_bars([("x", entries)]))
    bars = [
        tuple(map(float, found)) for found in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing)
    ]
    assert len(bars) == 2 and "nan" not in drawing
    widths = [width for _, width in bars]
    if any(scores):
        assert widths[0] * abs(scores[1]) == pytest.approx(widths[1] * abs(scores[0]), abs=0.5)
    for (x, width), value in zip(bars, scores, strict=True):
        zero = x + width if value < 0 else x
        assert all(
            zero == pytest.approx(b + (w if v < 0 else 0), abs=0.11) for (b, w), v in zip(bars, scores, strict=True)
        )
