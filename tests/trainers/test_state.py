"""Resume: N steps are N/2 + resume + N/2, bit for bit; another run's checkpoint is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from diffalign.trainers.run import checkpoints
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import DDPO, events, redness, same, snapshot

KINDS = {
    "lora, group": (tiny_sd3, {"ema_decay": 0.9, "beta": 0.05}),
    "lora, running": (tiny_sd, DDPO),
    "full, group": (tiny_sd3, {"lora_r": 0, "ratio": "guard", "lr_warmup_steps": 2}),
    "full, running": (tiny_sd, {**DDPO, "lora_r": 0, "ema_decay": 0.9, "ema_update_every": 3}),
    "window, dropout": (tiny_sd3, {"sde_window_size": 1, "lora_dropout": 0.2, "prefix_branches": 2}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def finished(trainer, resume=None):
    trainer.train(resume)
    return snapshot(trainer)


def test_half_a_run_resumed_is_the_whole_run(make, folder, kind):
    build, keys = kind
    whole = finished(make(build(), name="whole", max_train_steps=8, **keys))
    half = finished(make(build(), name="parts", max_train_steps=4, **keys))
    assert not same(half["weights"], whole["weights"])
    both = finished(make(build(), name="parts", max_train_steps=8, **keys), "latest")
    assert same(both, whole)
    lines = [events(folder.parent / name) for name in ("whole", "parts")]
    assert len(lines[0]) == 8 and lines[0] == lines[1]


def test_a_run_killed_after_a_checkpoint_goes_on_from_it(make, folder):
    keys = {"max_train_steps": 8, "checkpointing_steps": 3, "lr_scheduler": "cosine"}
    whole = finished(make(name="whole", **keys))
    found = sorted(path.name for path in (folder.parent / "whole").glob("checkpoint-*"))
    assert found == ["checkpoint-4", "checkpoint-6", "checkpoint-8"]  # the ends of the rollouts where 3 and 6 fell
    shutil.copytree(folder.parent / "whole", folder.parent / "killed")
    shutil.rmtree(folder.parent / "killed" / "checkpoint-8")
    with (folder.parent / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "step": 9, "rew')
    resumed = make(name="killed", **keys, resume_from_checkpoint="checkpoint-4")
    assert same(finished(resumed), whole)
    assert events(folder.parent / "killed") == events(folder.parent / "whole")


def test_the_global_generator_goes_on_where_it_was(make, folder):
    def lucky(images, prompts, metadata):
        return torch.rand(len(images))

    torch.manual_seed(5)
    make(name="whole", rewards=lucky, max_train_steps=4).train()
    torch.manual_seed(5)
    make(rewards=lucky, max_train_steps=2).train()
    torch.manual_seed(99)
    make(rewards=lucky, max_train_steps=4).train("latest")
    assert events(folder) == events(folder.parent / "whole")


def test_the_same_seed_gives_the_same_run_and_another_seed_another(make, folder):
    runs = [finished(make(name=str(i), seed=seed)) for i, seed in enumerate((0, 0, 1))]
    assert same(runs[0], runs[1]) and events(folder.parent / "0") == events(folder.parent / "1")
    assert not same(runs[0]["weights"], runs[2]["weights"])


def test_what_does_not_change_the_run_may_change_on_resume(make, folder):
    make(max_train_steps=2).train()
    make(max_train_steps=4, checkpoints_total_limit=1, run_name="longer").train("latest")
    assert [line["step"] for line in events(folder)] == [1, 2, 3, 4]
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate: 0.01 there, 0.001 now"),
        ({"num_generations": 2, "beta": 0.1}, r"num_generations: 4 there, 2 now, beta: 0.0 there, 0.1 now"),
        ({"lora_r": 8}, r"lora_r"),
        ({"rewards": [lambda images, prompts, metadata: images.mean((1, 2, 3))]}, r"reward_funcs: \['redness'\] there"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_with_the_keys(make, folder, change, named):
    make().train()
    before = (folder / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match=rf"checkpoint-2 belongs to a run with another configuration \(.*{named}"):
        make(**change).train("latest")
    assert (folder / "metrics.jsonl").read_text() == before


def test_a_checkpoint_of_another_model_is_refused(make, folder):
    make().train()
    with pytest.raises(ValueError, match="StableDiffusion3Pipeline'? there, 'StableDiffusionPipeline' now"):
        make(tiny_sd(), sde_type="ddim", noise_level=1.0).train("latest")
    state = json.loads((folder / "checkpoint-2" / "state.json").read_text())
    state["config"]["pretrained_model_name_or_path"] = "StableDiffusionPipeline"
    state["config"] |= {"sde_type": "ddim", "noise_level": 1.0}
    (folder / "checkpoint-2" / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="cannot be resumed: model changed"):
        make(tiny_sd(), sde_type="ddim", noise_level=1.0).train("latest")


def test_a_full_disk_stops_the_run_and_the_last_good_checkpoint_goes_on(make, folder, monkeypatch):
    whole = finished(make(name="whole", max_train_steps=4))
    calls = []

    def save_file(weights, path, real=checkpoints.save_file):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(weights, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", save_file)
        with pytest.raises(OSError, match=r"checkpoint-4 could not be written.*checkpoint-2"):
            make(max_train_steps=4, checkpointing_steps=2).train()
    assert sorted(path.name for path in folder.glob("*checkpoint*")) == ["checkpoint-2"]
    assert same(finished(make(max_train_steps=4, checkpointing_steps=2), "latest"), whole)


def test_a_folder_that_holds_a_run_is_neither_mixed_with_nor_lost(make, folder):
    make(name="other").train()
    make().train()
    (folder / "notes.txt").write_text("mine")
    before = (folder / "metrics.jsonl").read_text()
    for resume in (None, str(folder.parent / "other" / "checkpoint-2")):
        with pytest.raises(ValueError, match="already holds a run"):
            make().train(resume)
    assert (folder / "metrics.jsonl").read_text() == before
    with pytest.raises(ValueError, match="no checkpoint 'checkpoint-7'"):
        make(overwrite_output_dir=True).train("checkpoint-7")
    assert (folder / "metrics.jsonl").read_text() == before
    make(overwrite_output_dir=True, max_train_steps=4).train()
    assert [line["step"] for line in events(folder)] == [1, 2, 3, 4]
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]


def test_a_damaged_checkpoint_is_named_and_auto_goes_on_from_the_one_before(make, folder):
    keys = {"max_train_steps": 4, "checkpointing_steps": 2}
    whole = finished(make(name="whole", **keys))
    make(**keys).train()
    (folder / "checkpoint-4" / "training.pt").write_bytes(b"half of a file")
    with pytest.raises(ValueError, match=r"checkpoint-4 is damaged.*resume_from_checkpoint = checkpoint-2"):
        make(**keys).train("latest")
    assert same(finished(make(**keys), "auto"), whole)
    assert events(folder) == events(folder.parent / "whole")


def test_auto_starts_a_run_anew_that_was_killed_before_its_first_checkpoint(make, folder):
    whole = finished(make(name="whole"))
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"event": "step", "step": 1}\n')
    with pytest.raises(ValueError, match="holds no checkpoint"):
        make().train("latest")
    assert same(finished(make(), "auto"), whole)
    assert events(folder) == events(folder.parent / "whole")
    assert same(finished(make(), "auto"), whole), "a finished run is finished"


def test_two_runs_at_once_in_one_folder_are_refused(make, folder):
    inner = []

    def meddling(images, prompts, metadata):
        with pytest.raises(
            ValueError, match="another process is training into .*run just now: choose another output_dir"
        ):
            make(overwrite_output_dir=True).train()
        inner.append(1)
        return redness(images, prompts, metadata)

    make(rewards=meddling).train()
    assert inner and len(events(folder)) == 2
    make(overwrite_output_dir=True).train()  # the first one is over


def test_a_key_that_is_newer_than_the_checkpoint_counts_as_its_default(make, folder):
    make().train()
    path = folder / "checkpoint-2" / "state.json"
    state = json.loads(path.read_text())
    del state["config"]["guidance_scale"]
    path.write_text(json.dumps(state))
    make(max_train_steps=4).train("latest")
    with pytest.raises(ValueError, match="guidance_scale: 1.0 there, 2.0 now"):
        make(max_train_steps=4, guidance_scale=2.0).train("checkpoint-2")


def test_a_new_folder_takes_up_the_checkpoint_of_another(make, folder):
    whole = finished(make(name="whole", max_train_steps=4))
    make(name="half", max_train_steps=2).train()
    found = finished(make(max_train_steps=4), str(folder.parent / "half" / "checkpoint-2"))
    assert same(found, whole)
    assert [line["step"] for line in events(folder)] == [3, 4]


def test_histories_are_part_of_a_checkpoint(make, folder):
    trainer = make(tiny_sd(), **DDPO)
    trainer.train()
    saved = json.loads((folder / "checkpoint-2" / "state.json").read_text())["trainer"]["method"]["history"]
    assert saved == trainer.state.method["history"]
    assert {name: {p: len(v) for p, v in one.items()} for name, one in saved.items()} == {
        "sum": {"a photo of a red circle": 4, "two blue square": 4}
    }


def test_what_a_kill_after_the_last_step_left_is_removed_on_resume(make, folder):
    make(name="run", max_train_steps=4).train()
    rest = folder.parent / "run" / ".checkpoint-2.old.tmp"
    rest.mkdir()
    (rest / "state.json").write_text("{}")
    make(name="run", max_train_steps=4).train("latest")
    assert not rest.exists()
