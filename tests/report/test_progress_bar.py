"""The bar: its time left is that of training, its reward the present one."""

from __future__ import annotations

import re
import time

import pytest

from diffalign.report.progress_bar import StepBar


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def shown(capsys) -> str:
    """The last state of the bar."""
    return re.split(r"[\r\n]", capsys.readouterr().err.rstrip())[-1]


def test_evaluations_are_no_part_of_the_time_left(clock, capsys):
    bar = StepBar(10)
    for _ in range(4):
        clock[0] += 5
        bar.step(0.5)
    with bar.paused():
        clock[0] += 600
    clock[0] += 5
    bar.step(0.5)
    assert "00:25<00:25" in shown(capsys)  # 5 of 10 steps at 5 s each


def test_the_reward_is_that_of_the_step_just_made(clock, capsys):
    bar = StepBar(3)
    for reward in (0.1, 0.2, 0.9):
        clock[0] += 1
        bar.step(reward)
        assert f"reward {reward:.3f}" in shown(capsys)
    clock[0] += 1
    bar.step(float("nan"))
    assert "reward" not in shown(capsys)


def test_a_resumed_run_does_not_count_earlier_steps_in_its_rate(clock, capsys):
    bar = StepBar(110, initial=100)
    clock[0] += 2
    bar.step()
    assert "00:02<00:18" in shown(capsys)


def test_a_disabled_bar_prints_nothing(capsys):
    bar = StepBar(3, disable=True)
    with bar.paused():
        bar.step(1.0)
    bar.close()
    assert capsys.readouterr() == ("", "")
