"""Runs in processes of their own: killed, interrupted, and several at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.trainers.small_runs import distance, events, same

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "trainers" / "run_small.py"
pytestmark = pytest.mark.slow


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def start(folder, launcher=(), **keys):
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), json.dumps(keys)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes)


def run(folder, launcher=(), **keys):
    process = start(folder, launcher, **keys)
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out[-3000:]
    return torch.load(folder / "end-0.pt", weights_only=True)


def wait_for(condition, process, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def test_a_kill_in_the_middle_of_a_save_loses_only_what_was_after_the_last_one(tmp_path):
    keys = {"max_train_steps": 6, "checkpointing_steps": 2}
    process = start(tmp_path / "killed", hang_in_save=2, **keys)
    temporary = tmp_path / "killed" / ".checkpoint-4.tmp"
    wait_for(lambda: (temporary / "training.pt").exists(), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and temporary.is_dir()
    assert [path.name for path in (tmp_path / "killed").glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = run(tmp_path / "killed", resume="latest", **keys)
    assert not list((tmp_path / "killed").glob(".checkpoint-*"))
    whole = run(tmp_path / "whole", **keys)
    assert same(resumed, whole) and events(tmp_path / "killed") == events(tmp_path / "whole")


def test_ctrl_c_finishes_saves_and_exits_and_a_resume_is_the_whole_run(tmp_path):
    keys = {"max_train_steps": 12, "rewards": "slow"}
    process = start(tmp_path / "stopped", **keys)
    log = tmp_path / "stopped" / "metrics.jsonl"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 3, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=600)
    assert process.returncode != 0 and "Ctrl-C: finishing this roll-out" in out
    (saved,) = (tmp_path / "stopped").glob("checkpoint-*")
    step = int(saved.name.split("-")[1])
    assert step in (4, 6, 8) and [line["step"] for line in events(tmp_path / "stopped")] == list(range(1, step + 1))
    resumed = run(tmp_path / "stopped", resume="latest", **keys)
    assert same(resumed, run(tmp_path / "whole", **keys))
    assert events(tmp_path / "stopped") == events(tmp_path / "whole")


def torchrun(count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return ["-m", "torch.distributed.run", f"--nproc_per_node={count}", f"--master_port={port}"]


@pytest.mark.parametrize("count", [2, 4], ids=["two", "more than micro-batches"])
def test_any_number_of_processes_makes_the_same_update(tmp_path, count):
    # Three micro-batches; rewards with NaN and of whole groups; an epsilon that keeps rounding from becoming a step.
    keys = {
        "per_device_train_batch_size": 3,
        "updates_per_rollout": 1,
        "max_train_steps": 1,
        "adam_epsilon": 1e-3,
        "beta": 0.05,
        "rewards": "several",
        "preflight": True,
        "ema_decay": 0.5,
    }
    one = run(tmp_path / "one", **keys)
    many = run(tmp_path / "many", torchrun(count), **keys)
    assert len(list((tmp_path / "many").glob("end-*.pt"))) == count
    ranks = [torch.load(tmp_path / "many" / f"end-{rank}.pt", weights_only=True) for rank in range(count)]
    assert all(same(ranks[0][part], other[part]) for other in ranks for part in ("weights", "ema", "state"))
    assert distance(one["weights"], many["weights"]) <= 1e-6
    lines = [events(tmp_path / name)[0] for name in ("one", "many")]
    assert lines[0].keys() == lines[1].keys()
    assert lines[1].pop("forward/preflight") >= lines[0].pop("forward/preflight")  # each looks at a piece of its own
    for key, value in lines[0].items():
        if isinstance(value, (int, float)):
            assert lines[1][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert lines[0]["reward/patchy/nan"] > 0
    assert [path.name for path in (tmp_path / "many").glob("checkpoint-*")] == ["checkpoint-1"]


def test_an_interrupt_of_one_process_stops_them_all_after_the_same_roll_out(tmp_path):
    process = start(tmp_path / "many", torchrun(2), max_train_steps=12, rewards="interrupting")
    out, _ = process.communicate(timeout=600)
    assert process.returncode != 0 and out.count("KeyboardInterrupt: stopped at step 2") >= 1, out[-3000:]
    assert [path.name for path in (tmp_path / "many").glob("checkpoint-*")] == ["checkpoint-2"]
    assert [line["step"] for line in events(tmp_path / "many")] == [1, 2]
