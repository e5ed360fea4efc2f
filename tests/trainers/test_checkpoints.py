"""Checkpoints on disk: whole or not there, found again, refused when damaged."""

from __future__ import annotations

import errno
import json
import resource
from fractions import Fraction

import pytest
import torch
from safetensors import SafetensorError

from diffalign.trainers.run import checkpoints
from diffalign.trainers.run.checkpoints import find_checkpoint, latest_checkpoint, load_checkpoint, prune_checkpoints
from diffalign.trainers.run.checkpoints import save_checkpoint as save_to

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3)}
TENSORS = {"optimisation": {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(2.0)}}}, "rng": torch.zeros(4)}
STATE = {"trainer": {"step": 5, "history": {"red": {"a circle": [0.25, -1.5]}}}, "config": {"seed": 0}}


def save(folder, step=5, **parts):
    return save_to(folder, step, **{"weights": WEIGHTS, "tensors": TENSORS, "state": STATE, **parts})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back(tmp_path):
    path = save(tmp_path)
    assert path == tmp_path / "checkpoint-5" and names(tmp_path) == ["checkpoint-5"]
    assert names(path) == ["state.json", "training.pt", "weights.safetensors"]
    weights, tensors, state = load_checkpoint(path)
    assert torch.equal(weights["a.weight"], WEIGHTS["a.weight"])
    assert torch.equal(tensors["optimisation"]["state"][0]["exp_avg"], torch.ones(3))
    assert {key: state[key] for key in STATE} == STATE


def test_nothing_in_it_needs_a_pickle_of_code(tmp_path):
    path = save(tmp_path)
    torch.load(path / "training.pt", weights_only=True)
    state = json.loads((path / "state.json").read_text())
    del state["sha256"]
    (path / "state.json").write_text(json.dumps(state))
    torch.save({"optimisation": Fraction(1, 2)}, path / "training.pt")
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(path)


FULL_DISK = OSError(errno.ENOSPC, "No space left on device")
FAILURES = [
    ("save_file", FULL_DISK),
    ("save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
    ("torch.save", FULL_DISK),
    ("torch.save", RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")),
    ("json.dumps", FULL_DISK),
    ("os.replace", FULL_DISK),
]


@pytest.mark.parametrize(("where", "error"), FAILURES, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("again", [False, True], ids=["new", "overwriting"])
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, where, error, again):
    save(tmp_path, 4)
    if again:
        save(tmp_path, 5)

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"{checkpoints.__name__}.{where}", fail)
        with pytest.raises(OSError, match=rf"checkpoint-5 could not be written.*checkpoint-{5 if again else 4}\b"):
            save(tmp_path, 5, weights={"a.weight": torch.zeros(2, 3)})
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-5"][: 1 + again]
    for path in tmp_path.iterdir():
        assert torch.equal(load_checkpoint(path)[0]["a.weight"], WEIGHTS["a.weight"])


def test_a_checkpoint_that_could_not_be_replaced_is_put_back(tmp_path, monkeypatch):
    save(tmp_path, 5)
    calls, real = [], checkpoints.os.replace

    def replace(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(checkpoints.os, "replace", replace)
    with pytest.raises(OSError, match="could not be written"):
        save(tmp_path, 5, weights={"a.weight": torch.zeros(2, 3)})
    assert names(tmp_path) == ["checkpoint-5"]
    assert torch.equal(load_checkpoint(tmp_path / "checkpoint-5")[0]["a.weight"], WEIGHTS["a.weight"])


@pytest.mark.parametrize("part", ["weights", "tensors", "state"])
def test_a_file_that_really_does_not_fit(tmp_path, part):
    save(tmp_path, 4)
    big = {
        "weights": {"a.weight": torch.zeros(50_000)},
        "tensors": {"rng": torch.zeros(50_000)},
        "state": {"trainer": {"history": [0.5] * 50_000}},
    }
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written.*checkpoint-4"):
            save(tmp_path, 5, **{part: big[part]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["checkpoint-4"]


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path)
    save(tmp_path, weights={"a.weight": torch.zeros(2, 3)})
    assert names(tmp_path) == ["checkpoint-5"]
    assert not load_checkpoint(tmp_path / "checkpoint-5")[0]["a.weight"].any()


def test_the_rest_of_a_killed_save_is_in_nobodys_way(tmp_path):
    rest = tmp_path / ".checkpoint-5.tmp"
    rest.mkdir()
    (rest / "weights.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    load_checkpoint(save(tmp_path))
    assert names(tmp_path) == ["checkpoint-5"]


def test_the_latest_is_the_highest_number(tmp_path):
    for step in (9, 100, 20):
        save(tmp_path, step)
    for stranger in ("checkpoint-best", "checkpoint-7.bak", ".checkpoint-200.tmp"):
        (tmp_path / stranger).mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_a_checkpoint_is_found_by_path_name_or_latest(tmp_path):
    inside, outside = save(tmp_path / "run", 3), save(tmp_path / "elsewhere", 8)
    assert find_checkpoint(tmp_path / "run", "latest") == inside
    assert find_checkpoint(tmp_path / "run", "checkpoint-3") == inside
    assert find_checkpoint(tmp_path / "run", str(outside)) == outside
    with pytest.raises(ValueError, match=r"no checkpoint 'checkpoint-4'.*checkpoint-3"):
        find_checkpoint(tmp_path / "run", "checkpoint-4")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        find_checkpoint(tmp_path / "new", "latest")
    assert find_checkpoint(tmp_path / "run", "auto") == inside
    assert find_checkpoint(tmp_path / "new", "auto") is None


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def test_auto_passes_over_what_is_damaged_and_latest_names_the_one_to_use(tmp_path, caplog):
    for step in (3, 10, 20):
        save(tmp_path, step)
    cut(tmp_path / "checkpoint-20" / "training.pt")
    (tmp_path / "checkpoint-10" / "state.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-20 is damaged.*resume_from_checkpoint = checkpoint-3$"):
        load_checkpoint(find_checkpoint(tmp_path, "latest"))
    caplog.clear()
    assert find_checkpoint(tmp_path, "auto") == tmp_path / "checkpoint-3"
    assert "checkpoint-20 is damaged" in caplog.text and "checkpoint-10 is not a checkpoint" in caplog.text
    cut(tmp_path / "checkpoint-3" / "weights.safetensors")
    with pytest.raises(ValueError, match="no checkpoint in .* is whole"):
        find_checkpoint(tmp_path, "auto")


@pytest.mark.parametrize("name", ["weights.safetensors", "training.pt"])
def test_one_bit_that_changed_on_the_disk_is_seen(tmp_path, name):
    path = save(tmp_path)
    content = bytearray((path / name).read_bytes())
    at = content.index(torch.arange(6.0).numpy().tobytes() if "weights" in name else torch.ones(3).numpy().tobytes())
    content[at + 3] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"checkpoint-5 is damaged \({name} is not what was written"):
        load_checkpoint(path)


def test_a_kill_in_the_middle_of_pruning_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda *args, **kwargs: None)
    prune_checkpoints(tmp_path, 1)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize(("keep", "left"), [(None, [1, 2, 10]), (2, [2, 10]), (1, [10]), (5, [1, 2, 10])])
def test_only_the_newest_are_kept(tmp_path, keep, left):
    for step in (1, 10, 2):
        save(tmp_path, step)
    (tmp_path / ".checkpoint-11.tmp").mkdir()
    (tmp_path / "evaluation").mkdir()
    prune_checkpoints(tmp_path, keep)
    assert set(names(tmp_path)) == {"evaluation", *(f"checkpoint-{step}" for step in left)}


@pytest.mark.parametrize("name", ["weights.safetensors", "training.pt", "state.json"])
def test_a_half_checkpoint_is_refused_by_name(tmp_path, name):
    path = save(tmp_path)
    content = (path / name).read_bytes()
    for damage in (content[: len(content) // 2], b"", b"\x00\xff" * 40):
        (path / name).write_bytes(damage)
        with pytest.raises(ValueError, match=r"checkpoint-5 is damaged"):
            load_checkpoint(path)
    (path / name).unlink()
    with pytest.raises(ValueError, match=rf"checkpoint-5 is not a checkpoint: {name} missing"):
        load_checkpoint(path)


def test_another_format_is_refused(tmp_path):
    path = save(tmp_path)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        load_checkpoint(path)
