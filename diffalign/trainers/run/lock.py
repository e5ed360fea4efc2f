"""One run at a time in a folder; and which of several processes failed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch
from accelerate import Accelerator

WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""What file systems without locks answer; on them nothing is locked."""

LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "socket", "gloo", "nccl")
"""In the texts of collectives whose partner is gone."""


@contextmanager
def run_lock(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Inside, no other process trains into this folder; the system lets go of it when the process ends, however.

    Raises:
        ValueError: on every process, when another run has it.
    """
    descriptor, taken = _lock(folder) if accelerator.is_main_process else (None, False)
    try:
        if accelerator.num_processes > 1:
            flag = torch.tensor(float(taken), device=accelerator.device)
            taken = bool(accelerator.reduce(flag, reduction="sum") > 0)
        if taken:
            raise ValueError(
                f"another process is training into {folder} just now: choose another output_dir, or end it"
            )
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(folder: Path) -> tuple[int | None, bool]:
    """The descriptor that holds the lock of the folder, and whether somebody else has it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return None, False
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None, True
    except OSError as error:
        os.close(descriptor)
        if error.errno not in WITHOUT_LOCKS:
            raise
        return None, False
    return descriptor, False


class FailureOfOne:
    """Prints on stderr which of several processes failed, and after which step; the launcher then ends the others.

    Args:
        accelerator: the processes.
        step: gives the present optimiser step.
    """

    def __init__(self, accelerator: Accelerator, step: Callable[[], int]) -> None:
        self.accelerator, self.step = accelerator, step

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        accelerator = self.accelerator
        if isinstance(error, Exception) and accelerator.num_processes > 1:
            who = f"process {accelerator.process_index} of {accelerator.num_processes}"
            text = " ".join(str(error).split()) or kind.__name__ if kind else ""
            if isinstance(error, RuntimeError) and any(word in text.lower() for word in LOST):
                what = "lost another process; look for the message of the one that failed"
            else:
                what = f"failed: {type(error).__name__}: {text}"
            print(f"diffalign: {who} {what} (after step {self.step()})", file=sys.stderr, flush=True)
