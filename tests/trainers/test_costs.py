"""Model evaluations are counted as integers, and are what the methods cost on paper."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.tiny_pipelines import tiny_sd
from tests.trainers.small_runs import DDPO, RECORDS, events

# Per image, with T steps of which K are trained, guidance of two forwards (g = 2) or one (g = 1):
# rollout g T forwards; training g K forwards and K backwards (the unconditional branch has no graph);
# g K forwards of the reference when there is a KL term.
CASES = {
    "flow_grpo": ({}, {"rollout": 3, "train": 2, "backward": 2}),
    "guided": ({"guidance_scale": 2.0}, {"rollout": 6, "train": 4, "backward": 4}),
    "one branch": ({"guidance_scale": 2.0, "uncond_grad": False}, {"rollout": 6, "train": 4, "backward": 2}),
    "kl": ({"beta": 0.1}, {"rollout": 3, "train": 2, "backward": 2, "reference": 2}),
    "guided kl": (
        {"beta": 0.1, "guidance_scale": 2.0},
        {"rollout": 6, "train": 4, "backward": 4, "reference": 4},
    ),
    "two passes": ({"num_iterations": 2, "max_train_steps": 8}, {"rollout": 3, "train": 4, "backward": 4}),
    "fraction": ({"timestep_fraction": 0.5}, {"rollout": 3, "train": 1, "backward": 1}),
    "window": (
        {"num_inference_steps": 5, "sde_window_size": 2},
        {"rollout": 5, "train": 2, "backward": 2},
    ),
    # Two steps and the prediction of the forking one shared by the four images of a group, two of their own: 3 / 4 + 2;
    # training shares the forking step in the same way: 1 / 4 + 1.
    "prefix": (
        {"num_inference_steps": 5, "sde_window_size": 2, "sde_window_range": [2, 3], "prefix_branches": 4},
        {"rollout": 2.75, "train": 1.25, "backward": 1.25},
    ),
    "checkpointed": ({"gradient_checkpointing": True}, {"rollout": 3, "train": 2, "backward": 2}),
    "full": ({"lora_r": 0}, {"rollout": 3, "train": 2, "backward": 2}),
    "last step": ({"sde_last_step": True}, {"rollout": 3, "train": 3, "backward": 3}),
}


def counted(folder):
    total = Counter()
    for line in events(folder):
        total.update({name: n for name, n in line.items() if name.startswith(("forward/", "backward/"))})
        total["images"] += line["images"]
    return total


@pytest.mark.parametrize("case", CASES)
def test_counts_are_the_cost_model(make, folder, case):
    keys, cost = CASES[case]
    make(**{"max_train_steps": 4, **keys}).train()
    expected = {f"forward/{phase}": 16 * n for phase, n in cost.items() if phase != "backward"}
    found = counted(folder)
    assert found.pop("images") == 16
    assert found == expected | {"backward/train": 16 * cost["backward"]}
    assert all(isinstance(n, int) for n in found.values())


def test_ddpo_trains_every_step(make, folder):
    make(tiny_sd(), **DDPO, guidance_scale=3.0).train()
    assert counted(folder) == {"images": 8, "forward/rollout": 48, "forward/train": 48, "backward/train": 48}


def test_preflight_is_counted_apart(make, folder):
    make(name="without", beta=0.1).train()
    make(name="with", beta=0.1, preflight=True).train()
    plain, checked = (counted(folder.parent / name) for name in ("without", "with"))
    # One micro-batch of 4: a replay of both steps, whole and in halves, then one step of both policies for the KL.
    assert checked.pop("forward/preflight") == 4 * (2 + 2 + 2)
    assert checked == plain


def test_an_evaluation_counts_in_its_own_line(make, folder):
    keys = {"compare": True, "eval_images_per_prompt": 3, "eval_guidance_scales": [1.0, 2.0], "eval_steps": 2}
    make(name="plain").train()
    make(**keys, eval_records=RECORDS, eval_num_inference_steps=4).train()
    before, during, after = events(folder, "evaluation")
    images = 6 + 12  # two prompts, three images, 4 steps: one forward a step at scale 1, two at scale 2
    for line in (before, after):
        pictures = 2 * (1 if line["guidance"] == 1 else 2)
        assert line["forward/evaluation"] == 4 * (images + pictures)
    assert during["forward/evaluation"] == 4 * (2 + 2) * (1 if during["guidance"] == 1 else 2)  # scores and pictures
    assert counted(folder) == counted(folder.parent / "plain")


def test_seconds_are_logged_by_phase(make, folder):
    import json

    make(compare=True, eval_images_per_prompt=1, eval_guidance_scales=[1.0], eval_records=RECORDS).train()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    named = [{key for key in line if key.startswith("seconds/")} for line in lines]
    assert named == [
        {"seconds/evaluation"},
        {"seconds/rollout", "seconds/reward", "seconds/train"},
        {"seconds/train"},
        {"seconds/evaluation"},
    ]
    assert all(line[key] >= 0 for line, keys in zip(lines, named, strict=True) for key in keys)
