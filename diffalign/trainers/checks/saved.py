"""The policy is the pipeline that people run, before training and after what was trained is loaded from its file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffalign.models import Adapter, adapt, has_lora, load_lora, load_pipeline, save_trained, trainable_state
from diffalign.models.lora import saved_lora
from diffalign.models.selfcheck import LIMIT, plain_call_gap
from diffalign.sampling import rollout
from diffalign.trainers.checks.check import Check
from diffalign.trainers.checks.dry_run import restored_after
from diffalign.trainers.run.evaluation import decoded, evaluation_plan
from diffalign.trainers.run.setup import family_options

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer

STEPS, AMOUNT = 2, 0.05
"""ODE steps of the pictures; how far the weights are moved before they are saved."""

SECOND_MODEL = 2_000_000_000
"""Parameters of a pipeline up to which a second one is loaded to see a saved LoRA in it."""


def plain_call(trainer: BaseTrainer) -> Check:
    """Two steps of a plain call of the pipeline against the rollout, from one seed."""
    policy, prompt = trainer.policy, str(trainer.records[0]["prompt"])
    limit = 1e-3 if policy.denoiser.dtype == torch.float32 else LIMIT
    try:
        gap = plain_call_gap(policy, prompt, steps=STEPS, guidance=trainer.args.guidance_scale).mean
        figure = f"mean image difference {gap:.2g}, limit {limit:g}"
    except ValueError as error:  # a scheduler that no dynamics stands for
        gap, figure = 0.0, f"not compared: {error}"
    return Check(
        "a plain pipeline call equals the rollout",
        gap <= limit,
        figure,
        "The model is adapted wrongly, and training would improve another one than people run: report this model.",
    )


def reload(trainer: BaseTrainer) -> Check:
    """Disturb the weights, save them, load the file and compare; everything is put back.

    A LoRA is loaded into a fresh pipeline where that can be had again by its name and is not too large, else beside
    the trained one.
    """
    policy = trainer.policy
    with restored_after(trainer), tempfile.TemporaryDirectory() as folder:
        untouched = _pictures(policy, trainer)
        _disturb(trainer)
        save_trained(policy, folder)
        if not has_lora(policy):
            return _same_weights(trainer, Path(folder))
        ours = _pictures(policy, trainer)
        fresh = _fresh(trainer)
        if fresh is not None:
            load_lora(fresh, folder, trainable=False)
            theirs = _pictures(fresh, trainer)
        else:
            with saved_lora(policy, folder):
                theirs = _pictures(policy, trainer)
    effect, gap = float((ours - untouched).abs().max()), float((ours - theirs).abs().max())
    limit = effect * (0.01 if trainer.args.mixed_precision == "no" else 0.1)
    where = "a second adapter" if fresh is None else "a fresh pipeline"
    return Check(
        "the saved LoRA reloads to the same images",
        0 < effect and gap <= limit,
        f"images of {where} differ by {gap:.2g} at most; the LoRA changes them by {effect:.2g}",
        "diffusers would show another model than was trained: rank, alpha or names are lost on the way to the file.",
    )


def _fresh(trainer: BaseTrainer) -> Adapter | None:
    """The untrained model once more, or None where it was given as an object or is too large for a second one."""
    args, policy = trainer.args, trainer.policy
    modules = [m for m in policy.pipeline.components.values() if isinstance(m, nn.Module)]
    if trainer.loaded_from is None or sum(p.numel() for m in modules for p in m.parameters()) > SECOND_MODEL:
        return None
    pipeline = load_pipeline(
        trainer.loaded_from, revision=args.revision, variant=args.variant, dtype=policy.denoiser.dtype
    )
    fresh = adapt(pipeline, device=policy.device, **family_options(args))
    fresh.autocast = policy.autocast
    return fresh


def _same_weights(trainer: BaseTrainer, folder: Path) -> Check:
    """All weights are trained: a second model may not fit beside the first, so tensors are compared on the CPU."""
    policy = trainer.policy
    again = type(policy.denoiser).from_pretrained(folder / policy.denoiser_name).state_dict()
    ours = trainable_state(policy)
    wrong = [name for name, value in ours.items() if name not in again or not torch.equal(value, again[name])]
    return Check(
        "the saved model reloads with the same weights",
        not wrong,
        f"{len(wrong)} of {len(ours)} tensors differ" + (f" (first: {wrong[0]})" if wrong else ""),
        "diffusers would load another model than was trained: compare dtype and names in the saved folder.",
    )


@torch.no_grad()
def _disturb(trainer: BaseTrainer) -> None:
    """A fresh LoRA does nothing, so that a lost one would not be missed."""
    generator = torch.Generator().manual_seed(0)
    for parameter in trainer.parameters:
        parameter.add_(AMOUNT * torch.randn(parameter.shape, generator=generator).to(parameter))


@torch.no_grad()
def _pictures(policy: Adapter, trainer: BaseTrainer) -> Tensor:
    """(2, 3, H, W) images of the first training prompts."""
    plan = evaluation_plan(policy.schedule(STEPS), 1.0)
    prompts = [str(record["prompt"]) for record in trainer.records[:2]]
    return decoded(rollout(policy, plan, prompts, list(range(len(prompts))))).float().cpu()
