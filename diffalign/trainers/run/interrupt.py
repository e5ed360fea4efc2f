"""Ctrl-C and SIGTERM that lose nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Ctrl-C, the signal that schedulers send before they kill, and a closed terminal."""

FORWARDED_WITHIN = 1.0
"""Seconds. A terminal's Ctrl-C reaches torchrun and its workers alike, and torchrun hands it on once more."""


class Terminated(SystemExit):
    """Ends the process with the signal's own status (143 for SIGTERM, 129 for SIGHUP), after the run was saved.

    Args:
        text: what happened.
        number: the signal.
    """

    def __init__(self, text: str, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.text = text


class StopRequest:
    """The signal that asked for the end of the run, if any.

    Attributes:
        number: its number; 0 while there was none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    def is_set(self) -> bool:
        """True once a signal came."""
        return self.number != 0

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """The first signal is remembered; the second one acts.

        Raises:
            KeyboardInterrupt: a second Ctrl-C.
            Terminated: any other second signal.
        """
        now = time.monotonic()
        if not self.is_set():
            self.number, self._since = int(number), now
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            with suppress(OSError):  # a closed terminal takes no more text
                print(
                    f"\n{name}: finishing this rollout and saving; again to stop at once", file=sys.stderr, flush=True
                )
        elif "TORCHELASTIC_RUN_ID" not in os.environ or now - self._since > FORWARDED_WITHIN:
            raise stopping(int(number), "stopped at once")


def stopping(number: int, text: str) -> BaseException:
    """The exception that ends a run after this signal."""
    return KeyboardInterrupt(text) if number == signal.SIGINT else Terminated(text, number)


@contextmanager
def graceful_interrupt() -> Iterator[StopRequest]:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP is remembered: the loop finishes its rollout and saves."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, request.handle)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
