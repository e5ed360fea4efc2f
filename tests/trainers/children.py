"""Small runs in processes of their own, each with a deadline, in a process group that can be looked at."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "trainers" / "run_small.py"
DEADLINE = 600
"""Seconds for one child, which needs ten to thirty on two idle cores: only what hangs comes near."""


def environment() -> dict[str, str]:
    """One thread, no bars, the checkout first."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def start(folder: Path, launcher: Sequence[str] = (), **keys: Any) -> subprocess.Popen[str]:
    """A run of run_small.py in a session (and process group) of its own."""
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), json.dumps(keys)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output(process: subprocess.Popen[str], seconds: float = DEADLINE) -> str:
    """What it printed, once it has ended; a child that does not end is killed with its whole group."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still there after {seconds} s: {process.communicate()[0][-3000:]}") from error


def run(folder: Path, launcher: Sequence[str] = (), **keys: Any) -> dict[str, Any]:
    """A run to its end; the snapshot of its main process."""
    process = start(folder, launcher, **keys)
    out = output(process)
    assert process.returncode == 0, out[-3000:]
    return torch.load(folder / "end-0.pt", weights_only=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = DEADLINE) -> None:
    """Until the condition holds; the process must be there as long."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-3000:]
        if time.monotonic() > end:
            raise AssertionError(output(process, 0.1))
        time.sleep(0.02)


def group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended while we looked
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


def torchrun(count: int) -> list[str]:
    """The words that launch `count` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return ["-m", "torch.distributed.run", f"--nproc_per_node={count}", f"--master_port={port}"]
