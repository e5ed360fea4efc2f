"""The reader of metrics.jsonl: broken lines, repeated steps, holes."""

from __future__ import annotations

import json

import pytest

from diffalign.report.metrics_log import read_metrics, series


@pytest.fixture
def write(tmp_path):
    """Function `(*rows or lines) -> path` that writes a log."""

    def write_lines(*rows, end="\n"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + end, encoding="utf-8")
        return tmp_path / "metrics.jsonl"

    return write_lines


def step(number, **values):
    return {"event": "step", "step": number, **values}


def test_absent_file_is_an_empty_log(tmp_path):
    log = read_metrics(tmp_path / "metrics.jsonl")
    assert (log.steps, log.evaluations, log.skipped) == ([], [], 0)


def test_half_a_last_line_is_left_out(write):
    log = read_metrics(write(step(1, loss=0.5), '{"event": "step", "step": 2, "lo', end=""))
    assert log.step_series("loss") == [(1, 0.5)]
    assert log.skipped == 1


@pytest.mark.parametrize("line", ["[1, 2]", "3", "\x00\x00", "null"])
def test_other_broken_lines_are_counted(write, line):
    log = read_metrics(write(step(1), line, step(2)))
    assert [row["step"] for row in log.steps] == [1, 2]
    assert log.skipped == 1


def test_blank_lines_are_nothing(write):
    assert read_metrics(write(step(1), "", step(2))).skipped == 0


def test_events_are_told_apart(write):
    rows = (
        step(1),
        {"event": "evaluation", "step": 1, "overall": 0.4},
        {"event": "warning", "step": 1, "message": "m"},
    )
    log = read_metrics(write(*rows))
    assert [len(found) for found in (log.steps, log.evaluations, log.warnings)] == [1, 1, 1]


def test_a_repeated_step_shows_its_later_row_and_costs_both(write):
    log = read_metrics(write(step(1, loss=1.0, images=8), step(2, loss=2.0, images=8), step(2, loss=3.0, images=8)))
    assert log.step_series("loss") == [(1, 1.0), (2, 3.0)]
    assert log.total("images") == 24


def test_series_leaves_holes_out():
    rows = [step(1, kl=None), step(2, kl=float("nan")), step(3), step(4, kl=0.5), step(5, kl=True)]
    assert series(rows, "kl") == [(4, 0.5)]


def test_nan_written_as_a_bare_word_is_a_hole(write):
    assert read_metrics(write('{"event": "step", "step": 1, "loss": NaN}')).step_series("loss") == []


def test_series_per_step_index_in_numeric_order(write):
    row = {f"ratio/mean/{i}": float(i) for i in (10, 2, 0)} | {"ratio/mean": 9.0, "ratio/mean/all": 9.0}
    found = read_metrics(write(step(1, **row))).per_index("ratio/mean")
    assert list(found.items()) == [(0, [(1, 0.0)]), (2, [(1, 2.0)]), (10, [(1, 10.0)])]


def test_the_last_step_of_each_rollout(write):
    rows = [step(1, rollout=0), step(2, rollout=0), step(3, rollout=1), step(4, rollout=1)]
    assert [row["step"] for row in read_metrics(write(*rows)).rollout_ends().steps] == [2, 4]
    assert len(read_metrics(write(step(1), step(2))).rollout_ends().steps) == 2


def test_reward_names_may_hold_slashes(write):
    row = {"reward/a/b.py:f/mean": 1.0, "reward/jpeg/mean": 2.0, "reward/jpeg/std": 1.0, "reward/only_std/std": 1.0}
    assert read_metrics(write(step(1, **row))).reward_names() == ["a/b.py:f", "jpeg"]


def test_totals_by_phase_add_steps_and_evaluations(write):
    rows = (
        step(1, **{"seconds/rollout": 1.0, "seconds/train": 2.0}),
        step(2, **{"seconds/rollout": 1.5, "seconds/train": None}),
        {"event": "evaluation", "step": 2, "seconds/evaluation": 4.0},
    )
    assert read_metrics(write(*rows)).totals("seconds") == {"rollout": 2.5, "train": 2.0, "evaluation": 4.0}
