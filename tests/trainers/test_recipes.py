"""Every recipe loads, its plan fits its schedule, and it makes an optimiser step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffalign.config import RunConfig, changed
from diffalign.sampling import flow_schedule, shifted_sigmas
from diffalign.trainers import Trainer, load_config
from diffalign.trainers.policy_gradient_plan import training_plan, window_start
from diffalign.trainers.rollouts.plans import sampling_plan
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import RECORDS, events, redness

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "recipes"
RECIPES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
METHODS = (
    "awm dance_grpo diffusion_nft edit_r1 flow_cps flow_dppo flow_grpo flow_grpo_fast grpo_guard mix_grpo "
    "mix_grpo_flash tempflow_grpo"
).split()
"""Recipes of the shapes world that the leaderboard compares."""


def config(name: str) -> RunConfig:
    return load_config(FOLDER / f"{name}.yaml")


def test_every_method_has_its_recipe() -> None:
    assert {f"shapes-flow/{name}" for name in METHODS} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_and_writes_into_a_folder_of_its_own(name: str) -> None:
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    folders = [config(other).output_dir for other in RECIPES]
    assert folders.count(config(name).output_dir) == 1


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("shapes-flow/")])
def test_plans_fit_at_every_rollout(name: str) -> None:
    args = config(name)
    schedule = flow_schedule(shifted_sigmas(args.num_inference_steps, 3.0))
    if args.method != "policy_gradient":
        assert sampling_plan(args, schedule).recorded == ()
        return
    starts = {window_start(args, index) for index in range(300)}
    assert starts == set(args.window_starts())
    assert all(training_plan(args, schedule, start).recorded for start in starts)


def small(name: str, folder: Path) -> RunConfig:
    """A recipe of two prompts and four images each."""
    args = config(name)
    own = {"prefix_branches": 2} if args.branches > 1 else {}
    return changed(
        args,
        pretrained_model_name_or_path="tiny", resolution=None, max_sequence_length=None,
        num_inference_steps=min(args.num_inference_steps, 10), lr_warmup_steps=0,
        prompts_per_rollout=2, num_generations=4, **own, per_device_train_batch_size=8,
        updates_per_rollout=1, max_train_steps=1, compare=False, eval_dataset=None, eval_steps=0, eval_rewards=[],
        checkpointing_steps=0, task_weights={}, history_size=4, history_min_count=4, lora_dropout=0.0, lora_path=None,
        lora_target_modules=None, mixed_precision="no", gradient_checkpointing=False, output_dir=str(folder),
        reward_funcs=["shapes"], reward_weights=None, reward_kwargs={}, reward_transforms={}, reward_combination={},
        reward_routes={}, max_train_samples=None,
    )  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_an_optimiser_step(name: str, tmp_path: Path) -> None:
    args = small(name, tmp_path / "run")
    pipeline = tiny_sd() if args.sde_type == "ddim" else tiny_sd3()
    trainer = Trainer(pipeline, args, reward_funcs=redness, train_dataset=RECORDS)
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.train()
    (line,) = events(tmp_path / "run")
    assert line["grad_norm"] > 0 and not events(tmp_path / "run", "warning")
    moved = [not torch.equal(p, q) for p, q in zip(trainer.parameters, before, strict=True)]
    assert any(moved)
