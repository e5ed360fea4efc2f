"""metrics.jsonl: one JSON object per line, also after a kill."""

from __future__ import annotations

import json
import math

import torch
from accelerate import Accelerator

from diffalign.trainers.run.log import RunLog


def lines(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def log_in(folder):
    return RunLog(folder, Accelerator(cpu=True))


def test_numbers_are_plain_and_what_is_not_finite_is_null(tmp_path):
    log = log_in(tmp_path)
    log.write("step", 3, {"a": torch.tensor(0.5), "b": math.nan, "c": torch.tensor(math.inf), "d": 7, "e": "text"})
    assert lines(log) == [{"event": "step", "step": 3, "a": 0.5, "b": None, "c": None, "d": 7, "e": "text"}]
    assert "NaN" not in log.path.read_text()


def test_events_are_appended_and_cut_off_after_a_step(tmp_path):
    log = log_in(tmp_path)
    for step in (1, 2, 3):
        log.write("step", step, {})
    log.write("evaluation", 2, {"overall": 0.5})
    with log.path.open("a") as file:
        file.write('{"event": "step", "st')  # a kill in the middle of a line
    log_in(tmp_path).truncate(2)
    assert [(line["event"], line["step"]) for line in lines(log)] == [("step", 1), ("step", 2), ("evaluation", 2)]
    log.write("step", 3, {})
    assert len(lines(log)) == 4 and [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_log_that_is_not_there_has_nothing_to_cut(tmp_path):
    log_in(tmp_path).truncate(2)
    assert list(tmp_path.iterdir()) == []


def test_trackers_get_numbers_under_the_name_of_the_event(tmp_path):
    log, seen = log_in(tmp_path), []
    log.accelerator.log = lambda values, step: seen.append((values, step))
    log.write("evaluation", 4, {"overall": 0.25, "protocol": "before", "bad": math.nan})
    assert seen == [({"evaluation/overall": 0.25}, 4)]
