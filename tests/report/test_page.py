"""The page as a whole: complete for a finished run, written for any other, safe, self-contained."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from diffalign.report import headline, write_report
from diffalign.report.html import VOID

HEADINGS = [
    "Progress",
    "More held-out measures",
    "By task",
    "Guidance",
    "Pictures",
    "Ratio and clipping",
    "Health of the update",
    "Cost",
    "Configuration",
]


class Balance(HTMLParser):
    """Checks that every tag is closed where it should be, and collects the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(page) -> tuple[str, Balance]:
    text = page.read_text(encoding="utf-8")
    reader = Balance()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


def headings(text: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", text)


def test_a_finished_run_has_every_section_and_no_note(run_dir):
    page = write_report(run_dir)
    text, _ = read(page)
    assert page == run_dir / "report.html"
    assert headings(text) == HEADINGS
    assert 'class="note"' not in text
    assert not list(run_dir.glob("*.partial"))


def test_the_headline_is_in_the_title(run_dir):
    comparison = json.loads((run_dir / "evaluation/comparison.json").read_text())
    text, _ = read(write_report(run_dir))
    assert headline(comparison).replace(">", "&gt;") in text.split("</title>")[0]


def test_nothing_is_fetched(run_dir):
    text, reader = read(write_report(run_dir))
    addresses = [v for _, attrs in reader.seen for k, v in attrs.items() if k in ("src", "href", "xlink:href", "data")]
    assert addresses and all(address.startswith("data:image/") for address in addresses)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|<link", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}


def test_the_script_does_not_depend_on_the_run(run_dir):
    """One inline script and no event attribute, whatever the names in the run."""
    evil = "'<img src=x onerror=alert(1)></title><script>alert(2)</script>'"
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace("flow-grpo-shapes", evil))
    _, reader = read(write_report(run_dir))
    assert [tag for tag, _ in reader.seen].count("script") == 1
    assert not [attrs for _, attrs in reader.seen if any(name.startswith("on") for name in attrs)]
    assert all(attrs["src"].startswith("data:") for tag, attrs in reader.seen if tag == "img")


def test_prompts_rewards_and_messages_are_escaped(run_dir):
    log = run_dir / "metrics.jsonl"
    evil = "</script><b>x</b>"
    rows = [
        {"event": "warning", "step": 3, "message": evil},
        {"event": "step", "step": 151, f"reward/{evil}/mean": 1.0, f"reward/{evil}/std": 1.0, f"seconds/{evil}": 2.0},
    ]
    log.write_text(log.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    for tag in ("before", "after"):
        path = run_dir / f"evaluation/{tag}.json"
        content = json.loads(path.read_text())
        content["prompts"][0]["task"] = evil
        path.write_text(json.dumps(content))
    (run_dir / "evaluation/comparison.json").unlink()
    text, _ = read(write_report(run_dir))
    assert "<b>x</b>" not in text
    assert text.count("&lt;b&gt;x&lt;/b&gt;") >= 5


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    text, _ = read(write_report(tmp_path))
    assert headings(text) == []
    assert "training had not begun" in text and "No comparison before/after yet" in text


def test_a_killed_run_shows_what_it_has(run_dir):
    shutil.rmtree(run_dir / "images")
    for name in ("after.json", "comparison.json"):
        (run_dir / "evaluation" / name).unlink()
    log = run_dir / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:60_000])
    text, _ = read(write_report(run_dir))
    assert {"Progress", "Ratio and clipping", "Cost"} <= set(headings(text))
    assert "By task" not in headings(text)
    assert "after.json is missing" in text and "1 broken line" in text
    assert "Overall score before 0.4" in text


@pytest.mark.parametrize("part", ["config.yaml", "metrics.jsonl", "evaluation/before.json", "images/before.png"])
def test_any_one_file_may_be_missing(run_dir, part):
    (run_dir / part).unlink()
    assert read(write_report(run_dir))[0].startswith("<!doctype html>")


def test_single_pictures_share_rows(run_dir):
    """One seed per prompt: before and after stand side by side in narrow cards."""
    samples = run_dir / "images/samples.json"
    assert 'class="grid pairs"' not in read(write_report(run_dir))[0]
    content = json.loads(samples.read_text())
    samples.write_text(json.dumps(content | {"prompts": [f"prompt {i}" for i in range(12)]}))
    text, _ = read(write_report(run_dir))
    assert 'class="grid pairs"' in text and text.count("<img") == 24


def test_text_that_is_no_unicode_does_not_stop_the_page(run_dir):
    log = run_dir / "metrics.jsonl"
    log.write_text(log.read_text() + '{"event": "warning", "step": 1, "message": "half \\ud800 pair"}\n')
    assert "half ? pair" in read(write_report(run_dir))[0]


def test_no_change_and_a_loss_are_called_so(run_dir):
    stored = run_dir / "evaluation/comparison.json"
    comparison = json.loads(stored.read_text())
    for low, high, sentence in ((-0.05, 0.05, "no change is shown"), (-0.2, -0.1, "got worse")):
        comparison["overall"] |= {"gain": (low + high) / 2, "low": low, "high": high}
        stored.write_text(json.dumps(comparison))
        assert sentence in read(write_report(run_dir))[0]


@pytest.mark.parametrize(("line", "role"), [("", "trained on"), ("reward_weights: [0.0]\n", "measured only")])
def test_a_reward_of_weight_zero_is_measured_only(run_dir, line, role):
    config = run_dir / "config.yaml"
    config.write_text(config.read_text() + line)
    text, _ = read(write_report(run_dir))
    assert f'shapes_soft<span class="hint">{role}</span>' in text


def test_only_the_last_warnings_are_listed(run_dir):
    log = run_dir / "metrics.jsonl"
    rows = [json.dumps({"event": "warning", "step": i, "message": f"warning number {i}"}) for i in range(14)]
    log.write_text(log.read_text() + "\n".join(rows) + "\n")
    text, _ = read(write_report(run_dir))
    assert "warning number 13" in text and "warning number 3<" not in text
    assert "4 earlier warnings" in text


def test_the_page_is_small(run_dir):
    assert write_report(run_dir).stat().st_size < 600_000
