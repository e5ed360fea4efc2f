"""The watchdog of a run: what it measures, writes, stops and remembers."""

from __future__ import annotations

import json

import pytest
import torch

from diffalign.trainers.run.watchdog import measures
from tests.trainers.small_runs import RECORDS, events, redness

HELD_OUT = [
    {"prompt": f"{prompt['prompt']} {i}", "metadata": prompt["metadata"]} for i in range(2) for prompt in RECORDS
]


@pytest.fixture
def held_out(tmp_path):
    """A reward in a file: the opposite of redness, so that whoever trains on redness parts from it at once."""
    path = tmp_path / "judge.py"
    path.write_text(
        "def greenness(images, prompts, metadata):\n    return images[:, 1].mean((1, 2)) - images[:, 0].mean((1, 2))\n"
    )
    return f"{path}:greenness"


@pytest.fixture
def watched(make, held_out):
    """Runs whose scores part by a little more with each step, as if the policy had learned to."""

    def build(**keys):
        keys = {"max_train_steps": 8, "eval_steps": 2, "eval_records": HELD_OUT, **keys}
        trainer = make(eval_rewards=[held_out], **keys)
        measure = trainer.evaluations._measure

        def parting(*args):
            found = measure(*args)
            for prompt in found["prompts"]:
                prompt["rewards"]["redness"] += 0.1 * trainer.state.step
                prompt["rewards"]["greenness"] -= 0.1 * trainer.state.step
            return found

        trainer.evaluations._measure = parting
        return trainer

    return build


def test_a_run_that_parts_from_its_held_out_reward_is_flagged_and_goes_on(watched, folder):
    trainer = watched()
    trainer.train()
    lines = events(folder, "evaluation")
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 8]
    for key in ("high_frequency", "saturation", "clipped", "diversity"):
        assert 0 <= lines[0][f"watch/{key}"] <= 1
    warnings = events(folder, "warning")
    assert warnings and warnings[0]["watchdog"] == "greenness"
    assert "since step 0 redness rose by" in warnings[0]["message"] and "greenness fell by" in warnings[0]["message"]
    assert trainer.state.step == 8 and lines[-1]["watch/alarms"] == 1


def test_on_request_it_stops_and_the_run_ends_in_order(watched, folder):
    trainer = watched(watchdog="stop")
    trainer.train()
    first = events(folder, "warning")[0]["step"]
    assert trainer.state.step == first == 4
    assert [path.name for path in folder.glob("checkpoint-*")] == [f"checkpoint-{first}"]
    assert (folder / "report.html").exists() and (folder / "pytorch_lora_weights.safetensors").exists()


def test_a_resumed_run_is_held_against_the_evaluations_before(watched, folder):
    watched(name="whole").train()
    watched(max_train_steps=4).train()
    assert json.loads((folder / "checkpoint-4" / "state.json").read_text())["trainer"]["watchdog"]["best"]
    watched().train("latest")
    assert events(folder, "warning") == events(folder.parent / "whole", "warning") != []
    assert events(folder, "evaluation") == events(folder.parent / "whole", "evaluation")


def test_off_it_measures_nothing_and_without_held_out_rewards_it_has_nothing_to_say(make, watched, folder):
    watched(watchdog="off", max_train_steps=2).train()
    make(name="alone", max_train_steps=2, eval_steps=2, eval_records=HELD_OUT).train()
    for name in ("run", "alone"):
        (line,) = events(folder.parent / name, "evaluation")
        assert line["step"] == 2 and not [key for key in line if key.startswith("watch/")]


def test_watching_does_not_change_what_is_learned(watched, folder):
    runs = [watched(name=mode, watchdog=mode, max_train_steps=4) for mode in ("off", "flag")]
    for trainer in runs:
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(runs[0].parameters, runs[1].parameters, strict=True))


def test_measures_are_rewards_of_pictures_and_of_groups():
    found = measures()
    assert {name: reward.scope for name, reward in found.items()} == {
        "watch/high_frequency": "pointwise",
        "watch/saturation": "pointwise",
        "watch/clipped": "pointwise",
        "watch/diversity": "group",
    }
    images = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.2)])
    assert found["watch/diversity"](images, ["a", "a"], [{}, {}]).tolist() == pytest.approx([0.2, 0.2])
    assert redness(images, [], []).tolist() == [0, 0]
