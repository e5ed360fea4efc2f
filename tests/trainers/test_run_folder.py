"""The run folder: nothing of the user's is lost, and an old run stays until the new one has passed its checks."""

from __future__ import annotations

import json

import pytest
import torch

from diffalign.trainers.run.folder import ASIDE
from tests.tiny_pipelines import tiny_sd3
from tests.trainers.small_runs import events


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def finished(make, folder):
    """A folder with a finished run and files of the user's, and its content."""
    make(max_train_steps=2).train()
    (folder / "notes.txt").write_text("mine")
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "mine.png").write_bytes(b"mine")
    return content(folder)


def blind(images, prompts, metadata):
    return torch.full((len(images),), float("nan"))


@pytest.mark.parametrize(
    ("keys", "resume", "message"),
    [
        ({}, None, "already holds a run"),
        ({"overwrite_output_dir": True}, "RUN", "is not a checkpoint"),
        ({"overwrite_output_dir": True, "guidance_scale": 2.0}, "checkpoint-2", "another configuration"),
        ({"overwrite_output_dir": True, "rewards": blind, "preflight": True}, None, "would not learn"),
        ({"overwrite_output_dir": True, "compare": True, "eval_dataset": None}, None, "need held-out prompts"),
    ],
)
def test_a_refused_start_changes_no_file(make, folder, finished, keys, resume, message):
    with pytest.raises(ValueError, match=message):
        make(**keys).train(str(folder) if resume == "RUN" else resume)
    assert content(folder) == finished


def test_overwriting_removes_what_the_run_wrote_and_nothing_else(make, folder, finished):
    make(overwrite_output_dir=True, max_train_steps=4, updates_per_rollout=4).train()
    found = content(folder)
    assert found["notes.txt"] == found["images/mine.png"] == b"mine"
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"] and not (folder / ASIDE).exists()
    assert [line["step"] for line in events(folder)] == [1, 2, 3, 4]


def test_a_full_fine_tune_leaves_no_weights_beside_a_lora(make, folder):
    make(lora_r=0).train()
    assert (folder / "transformer").is_dir()
    make(overwrite_output_dir=True).train()
    assert not (folder / "transformer").exists() and not (folder / "model_index.json").exists()


def test_a_start_that_was_killed_is_undone_by_the_next(make, folder, finished):
    trainer = make(overwrite_output_dir=True)

    def killed(index):
        raise SystemExit(137)

    trainer.collect = killed
    real = type(trainer).train
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("diffalign.trainers.run.folder.RunFolder.restore", lambda self: None)  # a kill restores nothing
        real(trainer)
    assert (folder / ASIDE).is_dir()
    with pytest.raises(ValueError, match="already holds a run"):
        make().train()
    resumed = make(max_train_steps=4)
    resumed.train("latest")
    assert [line["step"] for line in events(folder)] == [1, 2, 3, 4] and not (folder / ASIDE).exists()


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "model_index.json", "report.html", "metrics.jsonl"])
def test_files_of_the_user_are_never_replaced(make, folder, name):
    folder.mkdir()
    (folder / name).write_text("{}\n")
    with pytest.raises(ValueError, match=f"holds {name}, which no run of diffalign wrote"):
        make(overwrite_output_dir=True).train()
    assert (folder / name).read_text() == "{}\n" and len(list(folder.iterdir())) == 1


def test_full_fine_tuning_into_the_models_own_folder_is_refused(make, folder):
    tiny_sd3().save_pretrained(folder)
    before = content(folder)
    with pytest.raises(ValueError, match="model_index.json"):
        make(str(folder), lora_r=0, overwrite_output_dir=True).train()
    assert content(folder) == before


def test_a_second_train_of_one_trainer_is_refused(make, folder):
    trainer = make()
    trainer.train()
    before = content(folder)
    with pytest.raises(ValueError, match="has made 2 steps already"):
        trainer.train()
    assert content(folder) == before


def test_what_changed_under_the_same_name_is_seen_on_resume(make, folder):
    make().train()
    other = [{"prompt": "a photo of a red circle", "metadata": {"tag": "colors"}}]
    with pytest.raises(ValueError, match="train_dataset changed since it was written"):
        make(max_train_steps=4, records=other).train("latest")
    pipeline = tiny_sd3()
    with torch.no_grad():
        next(pipeline.transformer.parameters()).add_(1)
    with pytest.raises(ValueError, match="model changed since it was written"):
        make(pipeline, max_train_steps=4).train("latest")
    state = json.loads((folder / "checkpoint-2" / "state.json").read_text())
    assert set(state["fingerprints"]) == {"train_dataset", "model"}
