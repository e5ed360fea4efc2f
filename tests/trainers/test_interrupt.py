"""The first Ctrl-C is remembered, the second one acts."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from diffalign.trainers.run import interrupt
from diffalign.trainers.run.interrupt import graceful_interrupt


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_an_event_the_second_an_interrupt(capsys):
    with graceful_interrupt() as event:
        assert not event.is_set()
        ctrl_c()
        assert event.is_set() and "again to stop at once" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()


def test_the_handler_that_was_there_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="inside"), graceful_interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_sigterm_is_remembered_and_the_second_signal_decides_the_exit(capsys, first, second):
    before = signal.getsignal(signal.SIGTERM)
    with graceful_interrupt() as request:
        os.kill(os.getpid(), first)
        assert request.number == first and "finishing this rollout" in capsys.readouterr().err
        with pytest.raises(SystemExit) as caught:
            os.kill(os.getpid(), second)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_torchrun_may_hand_on_the_signal_that_the_terminal_sent(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    now = [100.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])
    with graceful_interrupt() as request:
        ctrl_c()
        now[0] += 0.2
        ctrl_c()
        assert request.number == signal.SIGINT
        now[0] += 5
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()


def test_outside_the_main_thread_it_is_an_event_that_never_comes():
    seen = []

    def work():
        with graceful_interrupt() as event:
            seen.append(event.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
