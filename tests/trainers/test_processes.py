"""Runs in processes of their own: killed, interrupted, and several at once."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import torch

from tests.trainers.children import group_members, output, run, start, torchrun, wait_for
from tests.trainers.small_runs import RECORDS, distance, events, same

pytestmark = pytest.mark.slow


def logged(folder, lines=3):
    log = folder / "metrics.jsonl"
    return lambda: log.exists() and len(log.read_text().splitlines()) >= lines


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("*checkpoint-*"))


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


@pytest.mark.parametrize(("number", "status", "name"), [(signal.SIGINT, 1, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_finishes_saves_and_exits_and_a_resume_is_the_whole_run(tmp_path, number, status, name):
    keys = {"max_train_steps": 12, "rewards": "slow"}
    process = start(tmp_path / "stopped", **keys)
    wait_for(logged(tmp_path / "stopped"), process)
    os.killpg(process.pid, number)
    out = output(process)
    assert process.returncode in (status, -number) and f"{name}: finishing this rollout" in out
    assert group_members(process.pid) == []
    (saved,) = checkpoints(tmp_path / "stopped")
    step = int(saved.split("-")[1])
    assert step in (4, 6, 8) and [line["step"] for line in events(tmp_path / "stopped")] == list(range(1, step + 1))
    resumed = run(tmp_path / "stopped", resume="latest", **keys)
    assert same(resumed, run(tmp_path / "whole", **keys))
    assert events(tmp_path / "stopped") == events(tmp_path / "whole")


# --- several processes ------------------------------------------------------------------------------------------------

CAREFUL = {"adam_epsilon": 1e-3}
"""Keeps rounding from becoming a step: Adam divides a gradient near 0 by its own size."""


def ends(folder, count):
    return [torch.load(folder / f"end-{rank}.pt", weights_only=True) for rank in range(count)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Three micro-batches in one process; rewards with NaN and of whole groups."""
    folder = tmp_path_factory.mktemp("one") / "run"
    return folder, run(folder, **SEVERAL)


SEVERAL = {
    **CAREFUL,
    "per_device_train_batch_size": 3,
    "updates_per_rollout": 1,
    "max_train_steps": 1,
    "beta": 0.05,
    "rewards": "several",
    "preflight": True,
    "ema_decay": 0.5,
}


@pytest.mark.parametrize("count", [2, 4], ids=["two", "more than micro-batches"])
def test_any_number_of_processes_makes_the_same_update(tmp_path, one, count):
    folder, alone = one
    run(tmp_path, torchrun(count), **SEVERAL)
    ranks = ends(tmp_path, count)
    assert all(same(ranks[0][part], other[part]) for other in ranks for part in ("weights", "ema", "state"))
    assert distance(alone["weights"], ranks[0]["weights"]) <= 1e-6
    traces = [torch.load(tmp_path / f"trace-{rank}.pt", weights_only=True) for rank in range(count)]
    expected = torch.load(folder / "trace-0.pt", weights_only=True)
    together = {number: piece for found in traces for number, piece in found["pieces"][0].items()}
    assert together == expected["pieces"][0] and len(together) == 3, "the same micro-batches, each made once"
    assert sum(len(found["pieces"][0]) for found in traces) == 3
    largest = max(float(g.abs().max()) for g in expected["gradients"][0])
    for found in traces:
        pairs = zip(found["gradients"][0], expected["gradients"][0], strict=True)
        assert max(float((a - b).abs().max()) for a, b in pairs) <= 1e-6 * largest
    _same_numbers(events(folder)[0], events(tmp_path)[0])
    assert checkpoints(tmp_path) == ["checkpoint-1"]


def _same_numbers(expected, found):
    assert expected.keys() == found.keys()
    assert found["forward/preflight"] >= expected["forward/preflight"]  # each looks at a piece of its own
    for key, value in expected.items():
        if isinstance(value, (int, float)) and key != "forward/preflight":
            assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert expected["reward/patchy/nan"] > 0


def test_an_evaluation_is_shared_out_and_says_what_one_process_says(tmp_path):
    keys = {"compare": True, "eval_images_per_prompt": 2, "eval_guidance_scales": [1.0, 2.0], "rewards": "compared"}
    keys |= {"eval_records": [*RECORDS, *RECORDS[:1]], "max_train_steps": 2, "eval_steps": 2, "preflight": False}
    run(tmp_path / "1", **keys)
    for count in (2, 4):  # of four processes one has no prompt at all
        folder = tmp_path / str(count)
        run(folder, torchrun(count), **keys)
        expected, found = ((path / "evaluation/before.json").read_text() for path in (tmp_path / "1", folder))
        expected, found = json.loads(expected), json.loads(found)
        for one, other in zip(expected["prompts"], found["prompts"], strict=True):
            assert other == one | {"score": pytest.approx(one["score"], abs=1e-5), "rewards": other["rewards"]}
            assert other["rewards"] == pytest.approx(one["rewards"], abs=1e-5)
        assert found["seeds"] == expected["seeds"] and found["best_guidance"] == expected["best_guidance"]
        costs = [
            [line["forward/evaluation"] for line in events(path, "evaluation")] for path in (tmp_path / "1", folder)
        ]
        assert costs[0] == costs[1] and len(costs[0]) == 3
        shares = [torch.load(folder / f"trace-{rank}.pt", weights_only=True)["evaluated"] for rank in range(count)]
        assert [len(share) for share in shares] == ([20, 10] if count == 2 else [10, 10, 10, 0])


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    keys = {**CAREFUL, "updates_per_rollout": 1, "ema_decay": 0.5, "per_device_train_batch_size": 2}
    whole = run(tmp_path / "whole", max_train_steps=3, **keys)
    for first, second in ((1, 2), (2, 1)):
        folder = tmp_path / f"{first}-{second}"
        run(folder, torchrun(first), max_train_steps=2, **keys)
        found = run(folder, torchrun(second), max_train_steps=3, resume="latest", **keys)
        assert [line["step"] for line in events(folder)] == [1, 2, 3]
        assert distance(found["weights"], whole["weights"]) <= 1e-6
        assert found["state"] == whole["state"]


def test_a_nan_in_one_process_skips_the_step_in_all(tmp_path):
    run(tmp_path, torchrun(2), max_train_steps=4, per_device_train_batch_size=2, poison=[0, 3])
    ranks = ends(tmp_path, 2)
    assert all(same(ranks[0][part], ranks[1][part]) for part in ("weights", "state", "optimisation"))
    assert ranks[0]["state"]["skipped_total"] == 2 and ranks[0]["state"]["step"] == 4
    texts = [line["message"] for line in events(tmp_path, "warning")]
    assert [text.split(":")[0] for text in texts] == ["step 1", "step 4"]
    assert all(re.search(r"gradient of \S+ .*1 terms? of the loss", text) for text in texts), texts


def test_too_many_of_them_stop_all(tmp_path):
    keys = {"max_train_steps": 8, "per_device_train_batch_size": 2, "max_skipped_steps": 1}
    process = start(tmp_path, torchrun(2), poison=[0, 1, 2, 3], **keys)
    out = output(process)
    assert process.returncode != 0 and "process 0 of 2 failed: RuntimeError: step 2: skipped, the gradient of" in out
    assert group_members(process.pid) == []


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        ("crashing", r"process 1 of 2 failed: KeyError: 'metadata has no colour' \(after step 2\)"),
        ("dying", r"exitcode *: -9|Signal 9 \(SIGKILL\)"),
    ],
)
def test_the_crash_of_one_process_ends_the_job_and_says_whose_it_was(tmp_path, reward, told):
    process = start(tmp_path, torchrun(2), max_train_steps=12, rewards=reward, checkpointing_steps=2)
    out = output(process)
    assert process.returncode != 0 and re.search(told, out), out[-4000:]
    assert group_members(process.pid) == []
    assert "process 1 of 2 lost" not in out
    assert checkpoints(tmp_path) == ["checkpoint-2"]
    found = run(tmp_path, torchrun(2), max_train_steps=4, resume="latest", checkpointing_steps=2, rewards=reward)
    assert found["state"]["step"] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_job_saves_and_leaves_no_process(tmp_path, number):
    process = start(tmp_path, torchrun(2), max_train_steps=40, rewards="slow")
    wait_for(logged(tmp_path), process)
    os.killpg(process.pid, number)  # what a terminal's Ctrl-C does
    out = output(process)
    assert process.returncode != 0 and "finishing this rollout" in out
    assert group_members(process.pid) == []
    (saved,) = checkpoints(tmp_path)
    steps = [line["step"] for line in events(tmp_path)]
    assert steps == list(range(1, int(saved.split("-")[1]) + 1)) and len(steps) < 40


def test_an_interrupt_of_one_process_stops_them_all_after_the_same_rollout(tmp_path):
    process = start(tmp_path / "many", torchrun(2), max_train_steps=12, rewards="interrupting")
    out = output(process)
    assert process.returncode != 0 and out.count("KeyboardInterrupt: stopped at step 2") >= 1, out[-3000:]
    assert checkpoints(tmp_path / "many") == ["checkpoint-2"]
    assert [line["step"] for line in events(tmp_path / "many")] == [1, 2]


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_one_lives(tmp_path):
    first = start(tmp_path, max_train_steps=4000, rewards="slow")
    wait_for(logged(tmp_path, 1), first)
    second = start(tmp_path, max_train_steps=40, overwrite_output_dir=True)
    out = output(second)
    assert second.returncode != 0 and "another process is training into" in out
    first.kill()
    first.communicate()
    run(tmp_path, max_train_steps=2, overwrite_output_dir=True)  # the lock went with the process
