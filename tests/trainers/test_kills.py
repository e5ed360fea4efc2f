"""Kill -9 at random moments: each run, started again by the same command, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.trainers.children import ROOT, environment
from tests.trainers.small_runs import DDPO, events, same

pytestmark = pytest.mark.slow

STEPS, KILLS, DEADLINE = 12, 20, 300
KINDS = {
    "lora": ("sd3", {"ema_decay": 0.9, "beta": 0.05, "checkpoints_total_limit": 2}),
    "histories": ("sd", {**DDPO, "checkpoints_total_limit": 1}),
    "all weights": ("sd3", {"lora_r": 0, "lr_scheduler": "cosine", "checkpoints_total_limit": 1}),
    "window": ("sd3", {"sde_window_size": 1, "lora_dropout": 0.2, "checkpointing_steps": 4}),
}


class Parent:
    """The long-lived parent."""

    def __init__(self):
        script = ROOT / "tests" / "trainers" / "fork_runs.py"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=environment(), **pipes)
        assert self.answer() == {"ready": True}

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def start(self, folder, kind):
        model, keys = KINDS[kind]
        keys = {"checkpointing_steps": 2, **keys, "max_train_steps": STEPS, "resume": "auto"}
        job = {"folder": str(folder), "kind": model, "keys": keys, "seconds": DEADLINE}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.answer()["pid"]

    def status(self):
        return self.answer()["status"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(DEADLINE)


@pytest.fixture(scope="module")
def parent():
    found = Parent()
    yield found
    found.close()


@pytest.fixture(scope="module")
def whole(parent, tmp_path_factory):
    """Kind -> folder and seconds of a run that nobody disturbs."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("whole") / "run"
        begin = time.monotonic()
        parent.start(folder, kind)
        assert parent.status() == 0, folder.with_suffix(".log").read_text()[-3000:]
        found[kind] = folder, time.monotonic() - begin
    return found


def moments():
    """(kind, lines in the log to wait for, a share of one step's time after that)."""
    draw = random.Random(20)
    return [(list(KINDS)[i % len(KINDS)], draw.randrange(STEPS - 1), draw.random()) for i in range(KILLS)]


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize(("kind", "after", "share"), moments(), ids=range(1, KILLS + 1))
def test_a_killed_run_ends_like_one_that_was_not(parent, whole, tmp_path, kind, after, share):
    reference, seconds = whole[kind]
    folder = tmp_path / "run"
    pid = parent.start(folder, kind)
    end = time.monotonic() + DEADLINE
    while lines(folder) < after and time.monotonic() < end:
        time.sleep(0.001)
    moment = time.monotonic() + share * seconds / STEPS
    while lines(folder) <= after and time.monotonic() < moment:  # a run that is faster than the first is not let go
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    log = folder.with_suffix(".log")
    assert parent.status() == -signal.SIGKILL, log.read_text()[-3000:]
    parent.start(folder, kind)
    assert parent.status() == 0, log.read_text()[-3000:]
    ends = [torch.load(path / "end-0.pt", weights_only=True) for path in (folder, reference)]
    assert same(*ends)
    assert events(folder) == events(reference)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in reference.iterdir())
