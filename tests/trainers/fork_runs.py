"""A long-lived parent that forks small runs, so that each starts in a moment: one JSON job per line on stdin.

A job is {"folder", "kind", "keys", "seconds"}; the answers are {"pid"} at once and {"status"} at its end.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.run_small import run_one


def child(job: dict[str, Any], pipeline: Any) -> None:
    """Runs in the fork; its output goes to a file beside its folder, and it ends by itself after a while."""
    signal.alarm(job["seconds"])
    folder = Path(job["folder"])
    with folder.with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    run_one(folder, job["keys"], copy.deepcopy(pipeline))


def answer(**content: Any) -> None:
    """One line to whoever asked."""
    print(json.dumps(content), flush=True)


def main() -> None:
    """Until stdin is closed."""
    torch.set_num_threads(1)
    pipelines = {"sd3": tiny_sd3(), "sd": tiny_sd()}
    answer(ready=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child(job, pipelines[job["kind"]])
                status = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                if status:
                    sys.excepthook(*sys.exc_info())
                os._exit(status)
        answer(pid=pid)
        answer(status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
